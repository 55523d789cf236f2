// Two or more runs over one another, at /compare?jobs=a,b.

import { lines, drawn } from "../compare/lines.js";
import { el, go, link, path, roundPath } from "../gantt/dom.js";
import { duration, number } from "../gantt/words.js";

const MOST = 6;
const FIRST_ROWS = 100;
const SVG = "http://www.w3.org/2000/svg";

export const title = () => "Compare runs";

/** The path of this view for these runs. */
export const comparePath = (jobs) => `/compare?jobs=${jobs.map(encodeURIComponent).join(",")}`;

export function mount(root, params, source) {
  styled();
  const view = new CompareView(root, chosen(params), source);
  view.load();
  return { update: (change) => view.changed(change), unmount: () => (view.closed = true) };
}

/** The runs that the path names, each once. */
function chosen(params) {
  const said = params?.jobs ?? rawJobs(window.location.search);
  const jobs = Array.isArray(said) ? said : String(said).split(",");
  return [...new Set(jobs.filter((job) => job !== ""))];
}

function rawJobs(search) {
  const found = search.slice(1).split("&").find((each) => each.startsWith("jobs="));
  return found === undefined ? [] : found.slice(5).split(",").map(decoded);
}

function decoded(text) {
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    return text;
  }
}

class CompareView {
  constructor(root, jobs, source) {
    Object.assign(this, { root, jobs, source, closed: false, charts: [], rows: FIRST_ROWS, round: null });
    this.problem = el("p", { role: "alert", class: "problem", hidden: true });
    this.body = el("div");
    this.choice = el("details", { class: "choose", open: jobs.length < 2 }, el("summary", {}, "Choose runs"));
    root.replaceChildren(el("div", { class: "compare" }, el("h1", {}, "Compare runs"), this.problem, this.choice, this.body));
  }

  async load() {
    try {
      await this.loadChoice();
      if (this.jobs.length < 2) {
        this.body.replaceChildren(el("p", { class: "hint" }, "Choose two to six runs, and what differs between them is shown here."));
        return;
      }
      const said = await this.source.getJSON(`/api/compare?jobs=${this.jobs.map(encodeURIComponent).join(",")}`);
      if (this.closed) return;
      this.problem.hidden = true;
      // What is drawn anew loses where its reader is in it.
      const text = JSON.stringify(said);
      if (text === this.text) return;
      this.text = text;
      this.said = said;
      this.draw();
    } catch (error) {
      this.problem.hidden = false;
      this.problem.textContent = error.message || String(error);
    }
  }

  changed(change) {
    if (!change || change.job === undefined || this.jobs.includes(change.job)) this.load();
  }

  async loadChoice() {
    const { runs } = await this.source.getJSON("/api/runs");
    if (this.closed) return;
    const names = [...new Set([...this.jobs, ...runs.map((run) => run.job)])];
    const boxes = names.map((job) => el("input", { type: "checkbox", checked: this.jobs.includes(job) }));
    const say = el("button", { type: "button" });
    const picked = () => names.filter((_, at) => boxes[at].checked);
    const count = () => {
      const many = picked().length;
      say.disabled = many < 2 || many > MOST;
      say.textContent = many > MOST ? `Compare at most ${MOST}` : `Compare ${many} runs`;
    };
    boxes.forEach((box) => box.addEventListener("change", count));
    say.addEventListener("click", () => go(comparePath(picked())));
    count();
    const list = names.map((job, at) => el("li", {}, el("label", {}, boxes[at], el("span", {}, job))));
    const none = names.length < 2 ? el("p", { class: "hint" }, "There are fewer than two runs here yet: start another with `flmq server`.") : null;
    this.choice.replaceChildren(this.choice.firstElementChild, el("ul", {}, ...list), none ?? "", say);
  }

  draw() {
    const { runs, names, rounds } = this.said;
    const marks = this.marks();
    const series = (read) => runs.map((_, at) => rounds.map((each) => [each.round, each.sides[at] === null ? null : drawn(read(each.sides[at]))]));
    const charts = names.map((name) => lines(name, series((side) => measured(side, name)), marks, number, (round) => this.at(round)));
    charts.push(lines("seconds a round", series((side) => side.seconds), marks, number, (round) => this.at(round)));
    charts.push(lines("clients whose training counts", series((side) => side.counted), marks, number, (round) => this.at(round)));
    this.charts = charts;
    this.readout = el("p", { class: "readout", "aria-live": "polite" });
    this.table = el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "All rounds of these runs" });
    this.body.replaceChildren(
      el("ul", { class: "keys" }, ...runs.map((run, at) => this.key(run, at))),
      this.verdict(),
      this.readout,
      el("div", { class: "charts" }, ...charts.map((chart) => chart.figure)),
      el("h2", {}, "Round by round"),
      this.table,
    );
    this.at(this.round);
    this.drawTable();
  }

  key(run, at) {
    const sample = document.createElementNS(SVG, "svg");
    sample.setAttribute("viewBox", "0 0 44 16");
    sample.setAttribute("aria-hidden", "true");
    const line = document.createElementNS(SVG, "polyline");
    line.setAttribute("points", "0,8 44,8");
    line.setAttribute("class", `line run-${at}`);
    sample.append(line);
    const about = [run.strategy, `${run.rounds} rounds`, run.seconds == null ? null : duration(run.seconds), run.error ? "failed" : null];
    return el("li", {}, sample, el("span", {}, `${at + 1}.`), link(path("runs", run.job), run.job), el("span", { class: "about" }, about.filter(Boolean).join(", ")));
  }

  marks() {
    const { first_model: model, first_measures: measures, first_clients: clients } = this.said;
    const found = new Map();
    const add = (round, why) => round != null && found.set(round, [found.get(round), why].filter(Boolean).join("; "));
    add(model?.round, `round ${model?.round}: the first after which the models differ`);
    add(measures, `round ${measures}: the first that measures something else`);
    add(clients, `round ${clients}: the first in which other clients count`);
    return [...found];
  }

  verdict() {
    const { first_model: model, first_measures: measures, first_clients: clients, rounds, runs } = this.said;
    const common = rounds.filter((each) => each.sides.every((side) => side !== null));
    const told = [];
    if (!common.length) told.push("They have no round in common.");
    else if (model) {
      const digests = model.digests.map((digest, at) => `${at + 1}: ${digest.slice(0, 12)}`).join(", ");
      told.push(`The models differ from round ${model.round} on (${digests}).`);
    } else if (common.every((each) => each.same)) told.push(`The models have the same bits in all ${common.length} rounds that they have in common.`);
    else told.push("Of some rounds it is not known whether the models have the same bits: their runs keep no digest.");
    if (measures != null) told.push(`Round ${measures} is the first that measures something else.`);
    else if (common.length) told.push("All that they measure is equal.");
    if (clients != null) {
      const first = rounds.find((each) => each.round === clients);
      const only = first.sides.map((side, at) => (side?.only.length ? `only in ${runs[at].job}: ${side.only.join(", ")}${side.only_more ? ` and ${side.only_more} more` : ""}` : null));
      told.push(`Other clients count first in round ${clients}: ${only.filter(Boolean).join("; ") || "some are missing"}.`);
    } else if (common.length) told.push("The same clients count in each round.");
    return el("div", { class: model || measures != null || clients != null ? "verdict differs" : "verdict" }, ...told.map((each) => el("p", {}, each)));
  }

  at(round) {
    this.round = round;
    for (const chart of this.charts) chart.cursor(round);
    const each = this.said.rounds.find((one) => one.round === round);
    if (!each) {
      this.readout.textContent = "Point at a chart, or go along it with the arrow keys, to read a round of all runs.";
      return;
    }
    const first = this.said.names[0];
    const sides = each.sides.map((side, at) => {
      if (side === null) return `${at + 1}: no such round`;
      const value = first === undefined ? "" : `${first} ${shown(measured(side, first))}, `;
      return `${at + 1}: ${value}${duration(side.seconds)}, ${side.counted} of ${side.asked} count`;
    });
    this.readout.textContent = `Round ${round} – ${sides.join(" · ")}${each.same === false ? " · models differ" : each.same ? " · same bits" : ""}`;
  }

  drawTable() {
    const { runs, names, rounds } = this.said;
    const all = [
      ...names.map((name) => [name, (side) => shown(measured(side, name))]),
      ["count", (side) => `${side.counted} of ${side.asked}`],
      ["model", (side) => side.digest.slice(0, 8) || "–"],
      ["seconds", (side) => duration(side.seconds)],
    ];
    const heads = all.flatMap(([name]) => runs.map((_, at) => el("th", { scope: "col" }, `${name} ${at + 1}`)));
    const rows = rounds.slice(0, this.rows).map((each) => {
      const cells = all.flatMap(([name, read]) => {
        const values = each.sides.map((side) => (side === null ? null : read(side)));
        // No two runs take the same time.
        const differs = name !== "seconds" && values.every((value) => value !== null) && new Set(values).size > 1;
        return values.map((value) => el("td", { class: differs ? "differs" : null }, value ?? "–"));
      });
      const first = each.sides.findIndex((side) => side !== null);
      return el("tr", {}, el("th", { scope: "row" }, link(roundPath(runs[first].job, each.round), String(each.round))), ...cells);
    });
    const more = rounds.length > this.rows ? el("button", { type: "button", on: { click: () => ((this.rows += 1000), this.drawTable()) } }, `Show more of ${rounds.length} rounds`) : null;
    this.table.replaceChildren(el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "round"), ...heads)), el("tbody", {}, ...rows)), more ?? "");
  }
}

/** What a run measured by this name, which an object may have from its prototype. */
const measured = (side, name) => (Object.hasOwn(side.measures, name) ? side.measures[name] : null);

/** A measurement as it is said; numbers that JSON lacks come as `{$float: "nan"}`. */
function shown(value) {
  if (value !== null && typeof value === "object") return String(value.$float ?? "bytes");
  return number(value);
}

function styled() {
  if (document.querySelector("link[data-compare]")) return;
  document.head.append(el("link", { rel: "stylesheet", href: new URL("../compare/compare.css", import.meta.url).href, "data-compare": "" }));
}
