// Small charts of one client: its presence over time, and the course of a number over rounds. SVG.

import { el } from "./dom.js";
import { clock, duration } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [360, 110];

function svg(tag, props, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(props)) made.setAttribute(name, String(value));
  made.append(...children);
  return made;
}

/** A line over rounds, another one beside it to compare, and the numbers for screen readers. */
export function course(name, points, others, write) {
  const known = points.filter(([, value]) => typeof value === "number" && Number.isFinite(value));
  const all = [...known, ...others];
  if (!all.length) return el("figure", { class: "course" }, el("figcaption", {}, name), el("p", { class: "hint" }, "no numbers"));
  const [x0, x1] = ends(all.map(([round]) => round));
  let [y0, y1] = ends(all.map(([, value]) => value));
  if (y0 > 0 && y0 < y1 * 0.6) y0 = 0;
  if (y0 === y1) [y0, y1] = [y0 - 1, y1 + 1];
  const x = (round) => 6 + ((round - x0) / Math.max(1, x1 - x0)) * (WIDTH - 12);
  const y = (value) => HEIGHT - 8 - ((value - y0) / (y1 - y0)) * (HEIGHT - 16);
  const line = (list, kind) =>
    svg("polyline", { class: kind, fill: "none", points: list.map(([at, value]) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`).join(" ") });
  const dots = known.length <= 60 ? known.map(([at, value]) => dot(x(at), y(value), `round ${at}: ${write(value)}`)) : [];
  const last = known.at(-1);
  const highest = known.reduce((best, each) => (best === null || each[1] > best[1] ? each : best), null);
  const told = last ? `last ${write(last[1])}, highest ${write(highest[1])} in round ${highest[0]}` : "";
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${name}: ${told}` });
  if (others.length) picture.append(line(others, "others"));
  picture.append(line(known, "own"), ...dots);
  return el("figure", { class: "course" }, el("figcaption", {}, el("b", {}, name), ` ${told}`), picture);
}

function dot(cx, cy, text) {
  const made = svg("circle", { cx: cx.toFixed(1), cy: cy.toFixed(1), r: 2.5, class: "dot" });
  const title = svg("title", {});
  title.textContent = text;
  made.append(title);
  return made;
}

/** A band of when the client was there: online, away, gone. */
export function presence(changes, tasks) {
  const known = changes.filter((each) => each.at_ms != null).sort((a, b) => a.at_ms - b.at_ms);
  if (!known.length) return el("p", { class: "hint" }, "Nothing is recorded of when it was there.");
  const ended = tasks.map((task) => task.counted_ms ?? task.received_ms ?? 0);
  const from = known[0].at_ms;
  // What it is now shows, too, however lately it became so.
  const to = Math.max(from + 1000, known.at(-1).at_ms + (known.at(-1).at_ms - from) * 0.06, ...ended);
  const x = (at) => ((at - from) / (to - from)) * 1000;
  const picture = svg("svg", { viewBox: "0 0 1000 24", preserveAspectRatio: "none", class: "presence-band", role: "img", "aria-label": "When it was there: the list below says it" });
  known.forEach((each, index) => {
    const end = known[index + 1]?.at_ms ?? to;
    const box = svg("rect", { x: x(each.at_ms).toFixed(1), y: 2, height: 20, width: Math.max(1, x(end) - x(each.at_ms)).toFixed(1), class: `is-${each.status}` });
    const title = svg("title", {});
    title.textContent = `${each.status} from ${clock(each.at_ms)} for ${duration((end - each.at_ms) / 1000)}${each.reason ? `: ${each.reason}` : ""}`;
    box.append(title);
    picture.append(box);
  });
  const list = known.slice(-12).reverse().map((each) => el("li", {}, el("time", {}, clock(each.at_ms)), ` ${each.status}${each.reason ? `: ${each.reason}` : ""}`));
  return el("div", { class: "presence" }, picture, el("div", { class: "ends" }, el("span", {}, clock(from)), el("span", {}, clock(to))), el("ul", {}, ...list));
}

function ends(values) {
  return [Math.min(...values), Math.max(...values)];
}
