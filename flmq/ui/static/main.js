// The frame: which view stands at which path, links, keys, light and dark, what is spoken.

import { Source } from "./source.js";

const VIEWS = {
  runs: () => import("./views/runs.js"),
  run: () => import("./views/run.js"),
  round: () => import("./views/round.js"),
  clients: () => import("./views/clients.js"),
  client: () => import("./views/client.js"),
  compare: () => import("./views/compare.js"),
  broker: () => import("./views/broker.js"),
};
const ROUTES = [
  [/^\/$/, "runs", []],
  [/^\/compare\/?$/, "compare", []],
  [/^\/broker\/?$/, "broker", []],
  [/^\/runs\/([^/]+)\/?$/, "run", ["job"]],
  [/^\/runs\/([^/]+)\/rounds\/(\d+)\/?$/, "round", ["job", "round"]],
  [/^\/runs\/([^/]+)\/clients\/?$/, "clients", ["job"]],
  [/^\/runs\/([^/]+)\/clients\/([^/]+)\/?$/, "client", ["job", "client"]],
];
const STATES = { connecting: "connecting", live: "live", lost: "reconnecting", still: "report" };

const source = new Source();
const root = document.getElementById("view");
const spoken = document.getElementById("speak");
const live = document.getElementById("live");
let current = null;
let shown = 0;

// In a report there is one file, and a view stands behind the "#".
const here = () => (source.embedded === null ? location.pathname : decodeHash() || source.embedded.start);
const decodeHash = () => (location.hash.startsWith("#/") ? location.hash.slice(1) : "");

async function show(focus = false) {
  const mine = (shown += 1);
  const path = here();
  stands = location.pathname + location.search;
  current?.stop();
  current = null;
  const found = ROUTES.map(([pattern, view, names]) => [path.match(pattern), view, names]).find(([match]) => match);
  if (!found) {
    root.replaceChildren(message("Nothing here", `There is no view at ${path}. All runs are at the top left.`));
    return;
  }
  const [match, name, names] = found;
  let params;
  try {
    params = Object.fromEntries(names.map((each, index) => [each, decodeURIComponent(match[index + 1])]));
  } catch {
    root.replaceChildren(message("Nothing here", "This address is damaged: its % signs are no encoding. All runs are at the top left."));
    return;
  }
  params.query = new URLSearchParams(location.search);
  for (const link of document.querySelectorAll("[data-view]")) {
    const own = link.dataset.view === name || (link.dataset.view === "runs" && "job" in params);
    if (own) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  let view;
  try {
    view = await VIEWS[name]();
  } catch {
    root.replaceChildren(message("This view could not be loaded", "Load the page again; is `flmq ui` still running?"));
    return;
  }
  if (mine !== shown) return;
  root.replaceChildren();
  titled(view.title(params));
  const mounted = view.mount(root, params, { getJSON: (at, signal) => source.getJSON(at, signal), speak, titled });
  const unfollow = source.follow(params.job ?? null, (change) => mounted.update(change), said);
  current = {
    stop() {
      unfollow();
      mounted.unmount();
    },
  };
  if (focus) {
    root.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
}

function titled(text) {
  document.title = text ? `${text} · flmq` : "flmq";
}

/** Have a screen reader say it, once. */
function speak(text) {
  if (spoken.textContent !== text) spoken.textContent = text;
}

function said(state) {
  if (live.dataset.state === state) return;
  if (state === "lost") speak("The connection to this page's server is lost. It is tried again by itself.");
  else if (live.dataset.state === "lost") speak("Connected again.");
  live.title = state === "lost" ? "The page's server does not answer. It is tried again by itself; what is shown stays." : "";
  live.dataset.state = state;
  live.textContent = STATES[state];
}

function message(heading, text) {
  const made = document.createElement("section");
  made.className = "empty";
  made.append(document.createElement("h1"), document.createElement("p"));
  made.children[0].textContent = heading;
  made.children[1].textContent = text;
  return made;
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
  const to = link.getAttribute("href");
  if (!to.startsWith("/") || to.startsWith("//") || link.hasAttribute("download")) return;
  event.preventDefault();
  if (source.embedded === null) history.pushState(null, "", to);
  else location.hash = to;
  if (source.embedded === null) show(true);
});
let stands = location.pathname + location.search;
addEventListener("popstate", () => {
  // A link into the page, as the one that skips to the content, is no other view.
  if (source.embedded === null && location.pathname + location.search !== stands) show();
});
addEventListener("hashchange", () => source.embedded !== null && (decodeHash() || !location.hash) && show(true));

// -- light and dark -------------------------------------------------------------------------------

const THEMES = ["", "light", "dark"];
const stored = () => {
  try {
    return localStorage.getItem("flmq-theme") || "";
  } catch {
    return "";
  }
};
function theme(name) {
  if (name) document.documentElement.dataset.theme = name;
  else delete document.documentElement.dataset.theme;
  document.getElementById("theme").title = `Colours: ${name || "as the system has them"}`;
}
document.getElementById("theme").addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(stored()) + 1) % THEMES.length];
  try {
    localStorage.setItem("flmq-theme", next);
  } catch {
    // A page that may store nothing keeps it until it is closed.
  }
  theme(next);
});
theme(stored());

// -- keys -----------------------------------------------------------------------------------------

const help = document.getElementById("help");
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches?.("input, textarea, select");
  if (typing) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (event.key === "?") help.showModal();
  else if (event.key === "/") focusSearch(event);
  else if (event.key === "j" || event.key === "k") step(event.key === "j" ? 1 : -1);
  else if (event.key === "g") document.querySelector(".brand").click();
});

function focusSearch(event) {
  const search = root.querySelector("input[type=search]");
  if (!search) return;
  event.preventDefault();
  search.focus();
}

function step(by) {
  const links = [...root.querySelectorAll("tbody th a, tbody td:first-child a")].filter((each) => each.offsetParent);
  if (!links.length) return;
  const at = links.indexOf(document.activeElement);
  links[Math.max(0, Math.min(links.length - 1, at + by))].focus();
}

show();
