// A run, at /runs/JOB: where it stands, its rounds as charts, what befell it, its log.

import { el, go, link, path, roundPath } from "../gantt/dom.js";
import { bytes, clock, duration, number } from "../gantt/words.js";
import { Group } from "../charts/group.js";
import { RunCharts } from "../run/charts.js";
import { copying } from "../copying.js";
import { Log } from "../run/log.js";
import { roundsTable } from "../run/table.js";
import { when } from "../words.js";

const KINDS = { resume: "resumed", takeover: "taken over", kill: "killed", outage: "outage", blocked: "blocked", link: "link", note: "note" };

export const title = (params) => params.job;

export function mount(root, params, source) {
  const view = new RunView(root, params, source);
  view.load({ rounds_from: 0 });
  return { update: (change) => view.load(change), unmount: () => view.close() };
}

class RunView {
  constructor(root, params, source) {
    Object.assign(this, { params, source, rounds: new Map(), open: null, marks: [], closed: false });
    this.api = `/api/runs/${encodeURIComponent(params.job)}`;
    this.state = el("span", { class: "run-state" });
    this.problem = el("p", { class: "problem", role: "alert", hidden: true });
    this.facts = el("p", { class: "facts" });
    this.now = el("p", { class: "now", hidden: true });
    this.reset = el("button", { type: "button", hidden: true, on: { click: () => this.group.zoom(null) } }, "All rounds");
    this.group = new Group((round) => go(roundPath(params.job, round)), source.speak);
    this.group.zoomed = (range) => {
      this.reset.hidden = range === null;
      if (range) this.reset.textContent = `Rounds ${range[0]} to ${range[1]}: show all`;
    };
    this.charts = new RunCharts(this.group);
    this.befell = el("section", { "aria-label": "What befell it" });
    this.table = roundsTable(params.job);
    this.config = el("dl", { class: "config" });
    this.log = new Log(`${this.api}/log`, source);
    this.reading = el("p", { class: "hint slowly", role: "status" }, "Reading the run…");
    this.rest = el(
      "div",
      { hidden: true },
      el("p", { class: "hint" }, "Choose a round to see who did what in it; drag over a chart for a range of rounds, twice click for all."),
      this.befell,
      details("Rounds", this.table.root),
      details("Configuration", this.config),
      details("Log", this.log.root, () => this.log.load(), true),
    );
    root.replaceChildren(
      el("div", { class: "head" }, el("h1", {}, params.job), this.state, el("div", { class: "end" }, this.reset, link(path("runs", params.job, "clients"), "clients"), el("a", { href: `/compare?jobs=${encodeURIComponent(params.job)}` }, "compare"))),
      this.problem,
      this.facts,
      this.now,
      this.reading,
      this.charts.root,
      this.rest,
    );
  }

  async load(change) {
    if (this.busy) {
      const from = Math.min(this.again?.rounds_from ?? Infinity, change.rounds_from ?? 0);
      this.again = { rounds_from: from, befell: (this.again?.befell ?? false) || change.befell !== false };
      return;
    }
    this.busy = true;
    try {
      await this.read(change);
      this.problem.hidden = true;
    } catch (error) {
      if (this.closed) return;
      this.reading.remove();
      this.problem.hidden = false;
      this.problem.textContent = error.message;
    } finally {
      this.busy = false;
    }
    if (this.again && !this.closed) {
      const next = this.again;
      this.again = null;
      this.load(next);
    }
  }

  async read(change) {
    const from = Math.min(change.rounds_from ?? 0, this.last() + 1);
    // A reply is no entry of the event log: what befell the run, and its log, are as they were.
    const anew = change.befell !== false || from <= 0;
    const [head, found, marks] = await Promise.all([
      this.source.getJSON(this.api),
      this.source.getJSON(from > 0 ? `${this.api}/rounds?since=${from}` : `${this.api}/rounds`),
      anew ? this.source.getJSON(`${this.api}/marks`) : null,
    ]);
    if (this.closed) return;
    const before = this.last();
    if (from <= 0) this.rounds.clear();
    for (const each of found.rounds) this.rounds.set(each.round, each);
    this.open = found.open;
    if (marks) this.marks = marks.marks;
    this.show(head);
    if (before && this.last() > before) this.source.speak(`Round ${this.last()} is over. ${head.loss == null ? "" : `Loss ${number(head.loss)}.`}`);
    if (anew) this.log.follow();
  }

  last() {
    return Math.max(0, ...[...this.rounds.keys()].slice(-1));
  }

  show(head) {
    this.reading.remove();
    this.rest.hidden = false;
    const rounds = [...this.rounds.values()].filter((each) => each.round > 0);
    if (this.open && this.open.round > 0) rounds.push(this.open);
    this.group.show(rounds, this.marks);
    this.charts.show(rounds, head.metric_names ?? {});
    this.table.show(rounds);
    const failed = head.error && head.state !== "running";
    this.state.className = `run-state ${failed ? "failed" : head.state}`;
    this.state.textContent = failed ? "failed" : head.state;
    this.source.titled(`${head.state === "running" ? `${head.round}/${head.num_rounds ?? "?"} ` : ""}${head.job}`);
    this.facts.replaceChildren(...facts(head));
    this.tell(head);
    this.befell.replaceChildren(...befell(this.marks));
    this.config.replaceChildren(...Object.entries(head.config ?? {}).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(value)))));
  }

  /** What is going on, or how it ended, in a sentence. */
  tell(head) {
    const [text, bad] = sentence(head, this.open);
    this.now.hidden = !text;
    this.now.className = bad ? "now bad" : "now";
    this.now.replaceChildren(text ?? "");
    if (this.open && head.state === "running") this.now.append(" ", link(roundPath(head.job, this.open.round), "See who."));
  }

  close() {
    this.closed = true;
    this.group.close();
    this.log.close();
  }
}

function sentence(head, open) {
  if (head.problem && head.state === "damaged") return [head.problem, true];
  if (head.state === "unfinished") return [`No server is in charge of this run. ${head.error ? `The last one ended: ${head.error}. ` : ""}Start it again with the same --job and --runs-dir, and it resumes after round ${head.round}.`, true];
  if (head.state !== "running") return head.error ? [head.error, true] : head.stopped_early ? [`Stopped early: ${head.stopped_early}`, false] : ["", false];
  if (open) {
    const counts = open.open_phase === "evaluate" ? open.evaluate : open.fit;
    const noun = open.open_phase === "evaluate" ? "Evaluation" : "Training";
    const bad = counts.failed + counts.rejected ? `, ${counts.failed + counts.rejected} failed` : "";
    if (open.open_phase) return [`${noun} of round ${open.round}: ${counts.accepted} of ${counts.asked} have answered${bad}.`, false];
    return [`Round ${open.round}: the server is adding up, or evaluates itself.`, false];
  }
  if (head.waiting) return [`The server waits for clients: ${head.waiting.online} of ${head.waiting.needed} are here.`, false];
  return ["", false];
}

function facts(head) {
  const list = [["round", head.num_rounds ? `${head.round} of ${head.num_rounds}` : head.round], ["strategy", head.strategy]];
  if (head.loss != null) list.push(["loss", number(head.loss)]);
  if (head.started_ms) list.push(["began", when(head.started_ms), new Date(head.started_ms).toISOString()]);
  if (head.started_ms && head.ended_ms) list.push(["took", duration((head.ended_ms - head.started_ms) / 1000)]);
  if (head.online != null) list.push(["clients online", number(head.online)]);
  if (head.resumes) list.push(["resumed", { 1: "once", 2: "twice" }[head.resumes] ?? `${head.resumes} times`]);
  if (head.in_charge) list.push(["in charge", `${head.in_charge.host}, process ${head.in_charge.pid}, since ${clock(head.in_charge.since_ms)}`]);
  if (head.broker) list.push(["broker", head.broker]);
  list.push(["disk", bytes(head.disk_bytes)]);
  const made = list.map(([name, value, title]) => el("span", { title }, `${name} `, el("b", {}, String(value))));
  if (head.digest) made.push(el("span", {}, "model ", el("b", { class: "digest", title: head.digest }, head.digest.slice(0, 16)), copying(head.digest, "the model's digest")));
  return made;
}

function befell(marks) {
  if (!marks.length) return [];
  const lines = marks.slice(-500).reverse().map((mark) => {
    const at = new Date(mark.at_ms);
    const until = mark.until_ms ? ` (${duration((mark.until_ms - mark.at_ms) / 1000)})` : "";
    return el("li", {}, el("time", { datetime: at.toISOString(), title: at.toISOString() }, clock(mark.at_ms)), el("span", {}, KINDS[mark.kind] ?? mark.kind), el("span", {}, mark.text + until));
  });
  return [el("h2", {}, "What befell it"), el("ul", { class: "befell", tabindex: 0 }, ...lines)];
}

function details(name, content, opened, open = false) {
  const made = el("details", { open }, el("summary", {}, name), content);
  if (opened) {
    made.addEventListener("toggle", () => made.open && opened());
    if (open) opened();
  }
  return made;
}
