// What is told of a row: its numbers in words, the sentences of a round, and the table.

import { clientPath, el, link } from "./dom.js";
import { spans, STEP_NAMES } from "./rows.js";
import { bytes, clock, duration, number } from "./words.js";

export const OUTCOMES = {
  accepted: "counted",
  failed: "failed",
  rejected: "rejected",
  silent: "no reply",
  unroutable: "no queue",
  late: "late",
  duplicate: "again",
  open: "awaited",
};

/** A sentence of the API: texts, clients as links, times in the reader's time zone. */
export function sentence(pieces, job) {
  return pieces.map((each) => {
    if (typeof each === "string") return each;
    if (each.client !== undefined) return el("strong", {}, link(clientPath(job, each.client), each.client));
    const at = new Date(each.at_ms);
    return el("time", { datetime: at.toISOString(), title: at.toISOString() }, clock(each.at_ms));
  });
}

/** The facts of a row, [name, value] each, without those that are not known. */
export function factsOf(row) {
  const { part } = row;
  const took = spans(row);
  const facts = [["outcome", OUTCOMES[row.outcome] ?? row.outcome]];
  const add = (name, value) => value !== null && value !== undefined && facts.push([name, value]);
  if (row.seconds !== null) {
    const over = row.over === null ? "" : ` (${row.over < 0 ? "−" : "+"}${duration(Math.abs(row.over))} to the median)`;
    add("reply after", duration(row.seconds) + over);
  }
  for (const [step, words] of Object.entries({ ...STEP_NAMES, counted: "entered and counted" })) {
    if (took[step] !== undefined) add(words, duration(took[step]));
  }
  const last = row.segments.at(-1);
  if (last && last.to === null) add("last heard of", `${STEP_NAMES[last.step]}, since ${clock(last.from)}`);
  for (const [from, to] of row.away) add("away", `${clock(from)} – ${to == null ? "still" : clock(to)}`);
  const late = row.late ?? (row.outcome === "late" ? part : null);
  if (late) add("late reply", late.late_by == null ? clock(late.received_ms) : `${duration(late.late_by)} after the closing`);
  if (row.duplicate) add("replied again", clock(row.duplicate.received_ms));
  if (part.deliveries > 1) add("taken", `${part.deliveries} times`);
  const deaths = Math.max(part.deaths ?? 0, row.late?.deaths ?? 0);
  if (deaths) add("processes died in it", number(deaths));
  add("examples", part.examples == null ? null : number(part.examples));
  if (part.bytes_up) add("up", bytes(part.bytes_up));
  if (part.offset_ms != null) {
    add("its clock", `${signed(part.offset_ms)} (± ${duration((part.offset_error_ms ?? 0) / 1000)})`);
  }
  if (part.clock === false) add("its times", part.clock_note || "cannot be used");
  else if (!part.taken_ms && row.outcome === "accepted") add("its times", "not told: an older flmq");
  if (part.reason && row.outcome !== "accepted") add("reason", part.reason);
  return facts;
}

export function signed(ms) {
  if (Math.abs(ms) < 0.5) return "as the server's";
  return `${duration(Math.abs(ms) / 1000)} ${ms < 0 ? "behind" : "ahead"}`;
}

/** The table that says what the chart shows, for copying and for screen readers. */
export function tableOf(rows, job, caption) {
  const names = ["client", "outcome", "reply after", "over median", "waiting", "model", "training", "upload", "counted", "examples", "remarks"];
  const body = rows.map((row) => {
    const took = spans(row);
    const said = (step) => (took[step] === undefined ? "–" : duration(took[step]));
    const shown = new Set(["outcome", "reply after", "examples", "entered and counted", ...Object.values(STEP_NAMES).filter((name) => name !== STEP_NAMES.lost)]);
    const remarks = factsOf(row).filter(([name]) => !shown.has(name)).map(([name, value]) => `${name}: ${value}`);
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, link(clientPath(job, row.client), row.ask)),
      el("td", {}, OUTCOMES[row.outcome] ?? row.outcome),
      ...[
        row.seconds === null ? "–" : duration(row.seconds),
        row.over === null ? "–" : `${row.over < 0 ? "−" : "+"}${duration(Math.abs(row.over))}`,
        ...["waiting", "model", "training", "upload", "counted"].map(said),
        number(row.part.examples),
      ].map((text) => el("td", { class: "num" }, text)),
      el("td", {}, remarks.join("; ")),
    );
  });
  return el(
    "div",
    { class: "gantt-table", tabindex: 0, role: "region", "aria-label": caption },
    el(
      "table",
      {},
      el("caption", { class: "unseen" }, caption),
      el("thead", {}, el("tr", {}, ...names.map((name, index) => el("th", { scope: "col", class: index > 1 && index < names.length - 1 ? "num" : null }, name)))),
      el("tbody", {}, ...body),
    ),
  );
}
