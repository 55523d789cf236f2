// Where the views' data comes from: the page's server, or, in a report, what is embedded.
//
// A report is one file: it has a <script type="application/json" id="embedded"> that maps the API's
// paths to what they answered, and the modules through an import map, a data: URL each. For that to
// work, modules name each other by relative paths in plain import statements, also dynamic ones.

const RETRY = 1000;

export class Source {
  constructor() {
    const embedded = document.getElementById("embedded");
    this.embedded = embedded === null ? null : JSON.parse(embedded.textContent);
  }

  /** What the API answers at a path; throws an Error whose message says what to do. */
  async getJSON(path, signal) {
    if (this.embedded !== null) {
      return this.answered(path);
    }
    let response;
    try {
      response = await fetch(path, { signal, headers: { accept: "application/json" } });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("The page's server does not answer: is `flmq ui` still running? It is asked again by itself.");
    }
    const found = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
    if (!response.ok) throw new Error(found.error);
    return found;
  }

  /** What is embedded for a path: as it is, or gzip'ed JSON as base64. */
  async answered(path) {
    const [plain, query] = path.split("?");
    if (!Object.hasOwn(this.embedded, plain)) {
      throw new Error("This report does not have that: open the run with `flmq ui`.");
    }
    let found = this.embedded[plain];
    if (typeof found === "string") {
      const bytes = Uint8Array.from(atob(found), (each) => each.charCodeAt(0));
      const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      found = JSON.parse(await new Response(unpacked).text());
    }
    const search = new URLSearchParams(query ?? "").get("search")?.toLowerCase();
    if (!search || !found.lines) return found;
    return { ...found, lines: found.lines.filter((each) => each.text.toLowerCase().includes(search)) };
  }

  /**
   * Tell `onChange` of changes of a run, or of all runs where `job` is null, and `onState` whether
   * the stream is "live", "lost" or, in a report, "still". Returns what ends it.
   */
  follow(job, onChange, onState) {
    if (this.embedded !== null) {
      onState("still");
      return () => {};
    }
    const url = job === null ? "/api/stream" : `/api/stream?job=${encodeURIComponent(job)}`;
    let [stream, again, ended] = [null, null, false];
    const open = () => {
      stream = new EventSource(url);
      stream.onmessage = (event) => {
        onState("live");
        onChange(JSON.parse(event.data));
      };
      stream.onerror = () => {
        onState("lost");
        // A browser gives up where the server refuses; one that comes back is asked again.
        if (stream.readyState === EventSource.CLOSED && !ended) again = setTimeout(open, RETRY);
      };
    };
    open();
    return () => {
      ended = true;
      clearTimeout(again);
      stream.close();
    };
  }
}
