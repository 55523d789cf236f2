// The charts of a run: clients in each round, time, loss and every metric, bytes.

import { el } from "../gantt/dom.js";
import { bytes, duration, number } from "../gantt/words.js";
import { Chart } from "../charts/chart.js";
import { measure } from "../words.js";

const OUTCOMES = [
  ["answered", "answered", (counts) => counts.accepted],
  ["awaited", "open", (counts) => counts.open ?? 0],
  ["failed", "failed", (counts) => counts.failed],
  ["rejected", "rejected", (counts) => counts.rejected],
  ["silent", "silent", (counts) => counts.silent + counts.unroutable],
  ["late", "late", (counts) => counts.late],
];
const SPLIT = ["waiting", "transfer", "training", "aggregation"];
const SHORT = (value) => (Math.abs(value) >= 1e4 ? Intl.NumberFormat("en", { notation: "compact" }).format(value) : measure(value));

export class RunCharts {
  constructor(group) {
    this.group = group;
    this.root = el("div", { class: "charts" });
    this.made = new Map();
  }

  show(rounds, names) {
    const some = (of) => rounds.some((each) => of(each) != null);
    this.chart("fit", () => outcomes("Clients asked to train", "fit"));
    if (rounds.some((each) => each.evaluate.asked)) this.chart("evaluate", () => outcomes("Clients asked to evaluate", "evaluate"));
    if (some((each) => each.loss)) this.lines("loss", "Loss", [["loss", (each) => each.loss]]);
    if (some((each) => each.evaluate_loss)) this.lines("evaluate loss", "Loss at the clients", [["loss", (each) => each.evaluate_loss]]);
    for (const name of names.server ?? []) this.metric("metrics", name, name, rounds);
    for (const name of names.evaluate ?? []) this.metric("evaluate_metrics", name, `${name} at the clients`, rounds);
    for (const name of names.fit ?? []) this.metric("fit_metrics", name, `${name} in training`, rounds);
    if (some((each) => each.split)) {
      this.chart("split", () => ({ name: "Where a round's time went", kind: "bars", write: duration, tick: (value) => duration(value), weight: (each) => each.seconds ?? 0, series: SPLIT.map((part) => ({ name: part, colour: part, of: (each) => each.split?.[part] ?? null })) }));
    } else if (some((each) => each.seconds)) {
      this.chart("seconds", () => ({ name: "Seconds a round", kind: "bars", write: duration, weight: (each) => each.seconds ?? 0, series: [{ name: "time", colour: "training", of: (each) => each.seconds }] }));
    }
    this.chart("bytes", () => ({ name: "Bytes a round", kind: "lines", write: bytes, series: [{ name: "down", colour: "down", of: (each) => known(each, each.bytes_down) }, { name: "up", colour: "up", of: (each) => known(each, each.bytes_up) }] }));
  }

  metric(of, name, shown, rounds) {
    const value = (each) => {
      const found = each[of]?.[name];
      return typeof found === "number" ? found : null;
    };
    if (rounds.some((each) => value(each) !== null)) this.lines(`${of} ${name}`, shown, [[name, value]]);
  }

  lines(key, name, series) {
    this.chart(key, () => ({ name, kind: "lines", write: measure, tick: SHORT, series: series.map(([, of]) => ({ name: "", colour: "answered", of })) }));
  }

  chart(key, made) {
    if (!this.made.has(key)) this.made.set(key, this.group.add(new Chart(this.group, made()), this.root));
  }
}

/** What a round that is open has not counted yet is not 0. */
const known = (each, value) => (each.done === false && !value ? null : value);

function outcomes(name, phase) {
  const bad = (each) => each[phase].asked - each[phase].accepted + each[phase].late;
  return {
    name,
    kind: "bars",
    write: number,
    tick: (value) => (Number.isInteger(value) ? SHORT(value) : ""),
    weight: bad,
    series: OUTCOMES.map(([word, colour, of]) => ({ name: word, colour, of: (each) => of(each[phase]) })),
  };
}
