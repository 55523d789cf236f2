// The Gantt of a round, at /runs/JOB/rounds/N: who did what when, who slowed it, who is missing.

import { Gantt } from "../gantt/chart.js";
import { clientPath, el, go, link, path, roundPath, styled } from "../gantt/dom.js";
import { ORDERS, inOrder } from "../gantt/rows.js";
import { copying } from "../copying.js";
import { factsOf, sentence, tableOf } from "../gantt/told.js";
import { bytes, clock, duration, number } from "../gantt/words.js";

const NOUNS = { __proto__: null, fit: "Training", evaluate: "Evaluation" };
const EVERY = 700; // milliseconds between two readings, however much happens
const LEGEND = [
  ["waiting", "waiting in the queue"],
  ["model", "reading the model"],
  ["training", "training"],
  ["upload", "sending the reply"],
  ["counted", "counted"],
  ["away", "away"],
  ["lost", "lost with a process"],
  ["unknown", "no times told"],
];

export const title = (params) => `Round ${params.round} of ${params.job}`;

export function mount(root, params, source) {
  styled();
  const view = new RoundView(root, params, source);
  view.load();
  return { update: (change) => view.changed(change), unmount: () => view.close() };
}

class RoundView {
  constructor(root, params, source) {
    Object.assign(this, { root, params, source, panels: new Map(), closed: false });
    this.order = "slowest";
    this.search = "";
    this.density = "normal";
    this.said = el("div", { class: "said", "aria-live": "polite" });
    this.facts = el("p", { class: "facts" });
    this.charts = el("div");
    this.problem = el("p", { role: "alert", class: "problem", hidden: true });
    const number_ = Number(params.round);
    const heading = el(
      "div",
      { class: "gantt-head" },
      el("h1", {}, `Round ${params.round}`),
      el("p", {}, "of ", link(path("runs", params.job), params.job)),
      el(
        "nav",
        { "aria-label": "Neighbouring rounds" },
        number_ > 1 ? link(roundPath(params.job, number_ - 1), `← round ${number_ - 1}`) : null,
        (this.next = link(roundPath(params.job, number_ + 1), `round ${number_ + 1} →`)),
      ),
    );
    root.replaceChildren(heading, this.problem, this.said, this.facts, this.tools(), this.charts);
    this.clock = setInterval(() => this.tick(), 500);
  }

  tools() {
    const select = (label, values, act) =>
      el(
        "label",
        {},
        `${label} `,
        el(
          "select",
          { on: { change: (event) => act(event.target.value) } },
          ...Object.entries(values).map(([value, text]) => el("option", { value }, text)),
        ),
      );
    const button = (text, label, act) =>
      el("button", { type: "button", "aria-label": label, title: label, on: { click: act } }, text);
    const all = (act) => () => this.panels.forEach(({ chart }) => act(chart));
    this.count = el("output", { class: "count" });
    return el(
      "div",
      { class: "gantt-tools" },
      select("Rows", ORDERS, (order) => this.arrange({ order })),
      select("Height", { normal: "normal", dense: "dense", all: "all in sight" }, (density) =>
        this.arrange({ density }),
      ),
      el(
        "label",
        {},
        "Client ",
        el("input", {
          type: "search",
          placeholder: "part of its name",
          size: 14,
          on: { input: (event) => this.arrange({ search: event.target.value }) },
        }),
      ),
      this.count,
      el(
        "span",
        { role: "group", "aria-label": "Time" },
        button("−", "Zoom out (-)", all((chart) => chart.zoom(1.5))),
        button("+", "Zoom in (+)", all((chart) => chart.zoom(1 / 1.5))),
        button("whole round", "Show the whole round (0)", all((chart) => chart.fit())),
      ),
      el(
        "ul",
        { class: "legend", "aria-label": "Colours" },
        ...LEGEND.map(([name, text]) => el("li", {}, el("i", { class: `swatch ${name}` }), text)),
        el("li", {}, el("i", { class: "swatch line-closed" }), "closed"),
        el("li", {}, el("i", { class: "swatch line-deadline" }), "deadline"),
        el("li", {}, el("i", { class: "swatch line-median" }), "median reply"),
      ),
    );
  }

  async load() {
    const { job, round } = this.params;
    if (this.loading) {
      this.again = true;
      return;
    }
    this.loading = true;
    this.loadedAt = performance.now();
    try {
      const found = await this.source.getJSON(
        `/api/runs/${encodeURIComponent(job)}/rounds/${encodeURIComponent(round)}`,
      );
      if (!this.closed) this.show(found);
    } catch (error) {
      if (!this.closed) this.failed(error);
    } finally {
      this.loading = false;
      if (this.again && !this.closed) {
        this.again = false;
        this.load();
      }
    }
  }

  failed(error) {
    this.problem.hidden = false;
    this.problem.textContent = error.message || String(error);
  }

  show(found) {
    this.found = found;
    this.problem.hidden = true;
    const said = (found.said || []).map((pieces) => el("p", {}, ...sentence(pieces, this.params.job)));
    this.said.replaceChildren(...said);
    this.facts.replaceChildren(...this.headline(found.round || {}));
    const phases = found.phases || [];
    this.open = phases.some((phase) => phase.closed_ms == null);
    phases.forEach((phase) => this.panel(phase).show(phase));
    if (!phases.length) {
      this.charts.replaceChildren(
        el("p", { class: "empty" }, "Nothing of this round is recorded yet: it shows here once its tasks are published."),
      );
    }
    this.counted();
  }

  headline(round) {
    const facts = [];
    if (round.opened_ms != null) facts.push(["opened", clock(round.opened_ms)]);
    if (round.closed_ms != null) facts.push(["closed", clock(round.closed_ms)]);
    if (round.seconds != null) facts.push(["took", duration(round.seconds)]);
    for (const [name, seconds] of Object.entries(round.split || {})) {
      if (seconds != null) facts.push([name, duration(seconds)]);
    }
    if (round.loss != null) facts.push(["loss", number(round.loss)]);
    if (round.bytes_down) facts.push(["down", bytes(round.bytes_down)]);
    if (round.bytes_up) facts.push(["up", bytes(round.bytes_up)]);
    const made = facts.map(([name, value]) => el("span", {}, `${name} `, el("b", {}, value)));
    const { digest } = round;
    if (digest) made.push(el("span", {}, "model ", el("b", { class: "digest", title: digest }, digest.slice(0, 16)), copying(digest, "the model's digest")));
    return made;
  }

  panel(phase) {
    const key = `${phase.phase} ${phase.call ?? 0}`;
    if (!this.panels.has(key)) {
      if (!this.panels.size) this.charts.replaceChildren();
      this.panels.set(key, new Panel(this, phase));
    }
    return this.panels.get(key);
  }

  arrange(changes) {
    Object.assign(this, changes);
    this.panels.forEach(({ chart }) => chart.arrange(changes));
    this.counted();
  }

  counted() {
    const shown = [...this.panels.values()].map(({ chart }) => `${chart.shown.length.toLocaleString("en")}`);
    const total = [...this.panels.values()].map(({ chart }) => chart.rows.length);
    this.count.textContent = this.search && total.length ? `${shown[0]} of ${total[0].toLocaleString("en")}` : "";
  }

  tick() {
    if (!this.open || document.hidden) return;
    this.panels.forEach(({ chart }) => chart.phase.closed_ms == null && chart.tick(Date.now()));
  }

  changed(change) {
    if (change && change.job !== undefined && change.job !== this.params.job) return;
    // A round that is over stays as it is, until the server says that it was read anew.
    const over = this.found?.round?.done;
    if (over && change?.rounds_from > Number(this.params.round)) return;
    const wait = (this.loadedAt ?? 0) + EVERY - performance.now();
    if (wait <= 0) this.load();
    else this.later ??= setTimeout(() => ((this.later = null), this.closed || this.load()), wait);
  }

  close() {
    this.closed = true;
    clearInterval(this.clock);
    clearTimeout(this.later);
    this.panels.forEach((panel) => panel.chart.close());
  }
}

class Panel {
  constructor(view, phase) {
    this.view = view;
    this.heading = el("h2");
    this.state = el("span", { class: "summed" });
    this.detail = el("div", { class: "detail", "aria-live": "polite" });
    this.host = el("div");
    this.table = el("div");
    this.details = el("details", { on: { toggle: () => this.fill() } }, el("summary", {}, "As a table"), this.table);
    const noun = NOUNS[phase.phase] ?? phase.phase;
    this.heading.textContent = phase.call ? `${noun}, call ${phase.call}` : noun;
    const section = el(
      "section",
      { class: "gantt-phase", "aria-label": this.heading.textContent },
      el("header", {}, this.heading, this.state),
      this.host,
      this.detail,
      this.details,
    );
    view.charts.append(section);
    const label = `${this.heading.textContent}, a row a client. Arrow up and down: clients; left and right, plus and minus: time; Enter: open the client.`;
    this.chart = new Gantt(this.host, label, {
      select: (row) => this.tell(row),
      open: (row) => go(clientPath(view.params.job, row.client)),
    });
    Object.assign(this.chart, { order: view.order, search: view.search, density: view.density });
    this.tell(null);
  }

  show(phase) {
    this.chart.show(phase, Date.now());
    const answered = this.chart.rows.filter((row) => row.outcome === "accepted").length;
    const asked = phase.asked ?? this.chart.rows.length;
    const ended = phase.closed_ms == null ? "open" : `closed: ${phase.reason || "no reason recorded"}`;
    const middle = this.chart.median === null ? "" : ` · median reply after ${duration(this.chart.median)}`;
    const until = phase.deadline_ms == null || phase.opened_ms == null ? "" : ` · deadline after ${duration((phase.deadline_ms - phase.opened_ms) / 1000)}`;
    const text = `${answered.toLocaleString("en")} of ${asked.toLocaleString("en")} counted · ${ended}${middle}${until}`;
    // Who was counted, a line each: what the round's model was made of.
    const counted = this.chart.rows.filter((row) => row.outcome === "accepted").map((row) => row.ask);
    const set = phase.closed_ms == null || !counted.length ? [] : [copying(counted.sort().join("\n"), `the closing set of ${this.heading.textContent}`, "copy closing set")];
    this.state.replaceChildren(text, ...set);
    this.fill();
  }

  fill() {
    if (!this.details.open) return;
    const { params } = this.view;
    const caption = `${this.heading.textContent} of round ${params.round}, by client`;
    this.table.replaceChildren(tableOf(inOrder(this.chart.rows, this.chart.order), params.job, caption));
  }

  tell(row) {
    if (!row) {
      this.detail.replaceChildren(el("span", { class: "hint" }, "Point at a row, or step through them with the arrow keys, for its numbers; click for the client."));
      return;
    }
    this.detail.replaceChildren(
      el("strong", {}, row.ask),
      ...factsOf(row).map(([name, value]) => el("span", {}, `${name} `, el("b", {}, value))),
    );
  }
}
