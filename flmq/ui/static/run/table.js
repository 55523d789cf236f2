// The rounds of a run as a table: the numbers of the charts, to read and to copy.

import { el, link, roundPath } from "../gantt/dom.js";
import { bytes, duration, number } from "../gantt/words.js";
import { measure } from "../words.js";

const AT_ONCE = 50;

export function roundsTable(job) {
  const body = el("tbody");
  const heads = el("tr");
  const more = el("button", { type: "button" });
  const root = el("div", {}, el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Rounds" }, el("table", {}, el("thead", {}, heads), body)), more);
  const state = { rounds: [], most: AT_ONCE };
  const draw = () => {
    const names = [...new Set(state.rounds.flatMap((each) => Object.keys(each.metrics)))].slice(0, 12);
    const columns = ["round", "answered", "failed", "rejected", "silent", "late", "loss", ...names, "time", "slowest", "down", "up", "model"];
    heads.replaceChildren(...columns.map((name) => el("th", { scope: "col", class: ["round", "slowest", "model"].includes(name) ? null : "num" }, name)));
    const shown = state.rounds.slice(-state.most).reverse();
    body.replaceChildren(...shown.map((each) => row(job, each, names)));
    const left = state.rounds.length - shown.length;
    more.hidden = left <= 0;
    more.textContent = `Show ${number(Math.min(left, 10 * AT_ONCE))} more`;
  };
  more.addEventListener("click", () => {
    state.most += 10 * AT_ONCE;
    draw();
  });
  return {
    root,
    show(rounds) {
      state.rounds = rounds;
      draw();
    },
  };
}

function row(job, each, names) {
  const fit = each.fit;
  const cells = [
    `${number(fit.accepted)} of ${number(fit.asked)}`,
    number(fit.failed),
    number(fit.rejected),
    number(fit.silent + fit.unroutable),
    number(fit.late),
    measure(each.loss),
    ...names.map((name) => measure(Object.hasOwn(each.metrics, name) ? each.metrics[name] : null)),
    duration(each.seconds),
  ];
  const slowest = each.slowest ? `${each.slowest.client} (${duration(each.slowest.seconds)})` : "–";
  return el(
    "tr",
    { "data-round": each.round },
    el("th", { scope: "row" }, link(roundPath(job, each.round), String(each.round)), each.done === false ? " (open)" : ""),
    ...cells.map((text) => el("td", { class: "num" }, text)),
    el("td", {}, slowest),
    el("td", { class: "num" }, bytes(each.bytes_down)),
    el("td", { class: "num" }, bytes(each.bytes_up)),
    el("td", { class: "digest", title: each.digest }, each.digest ? each.digest.slice(0, 12) : "–", each.note ? el("div", { class: "problem" }, each.note) : null),
  );
}
