// Lines of several runs over rounds, with a cursor that the keyboard moves too. SVG.

import { el } from "../gantt/dom.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [420, 170, 54, 10, 8, 22];

function svg(tag, props, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(props)) made.setAttribute(name, String(value));
  made.append(...children);
  return made;
}

const finite = (value) => typeof value === "number" && Number.isFinite(value);

/** What is drawn of `{$float: "nan"}`, texts and what is missing: nothing. */
export const drawn = (value) => (finite(value) ? value : null);

/**
 * A chart: `series` is one list of [round, value] a run, `marks` are rounds to be marked with a text.
 * `onRound(round)` is called as the cursor moves, and `cursor(round)` of what is returned moves it.
 */
export function lines(name, series, marks, write, onRound) {
  const all = series.flat().filter(([, value]) => finite(value));
  const caption = el("figcaption", {}, el("b", {}, name));
  if (!all.length) return { figure: el("figure", { class: "lines" }, caption, el("p", { class: "hint" }, "no numbers")), cursor: () => {} };
  const rounds = [...new Set(series.flat().map(([round]) => round))].sort((a, b) => a - b);
  const [x0, x1] = [rounds[0], rounds.at(-1)];
  let [y0, y1] = ends(all.map(([, value]) => value));
  if (y0 > 0 && y0 < y1 * 0.6) y0 = 0;
  if (y0 === y1) [y0, y1] = [y0 - 1, y1 + 1];
  const x = (round) => LEFT + ((round - x0) / Math.max(1, x1 - x0)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - ((value - y0) / (y1 - y0)) * (HEIGHT - TOP - BOTTOM);
  const told = series.map((points, at) => `run ${at + 1} ends at ${write(last(points))}`).join(", ");
  const picture = svg("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    role: "img",
    tabindex: 0,
    "aria-label": `${name} by round: ${told}. Arrow keys go from round to round; the table below has all numbers.`,
  });
  for (const value of [y0, (y0 + y1) / 2, y1]) {
    picture.append(svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }));
    picture.append(text(LEFT - 6, y(value) + 4, write(value), "end"));
  }
  for (const round of new Set([x0, rounds[Math.floor(rounds.length / 2)], x1])) picture.append(text(x(round), HEIGHT - 6, round, round === x0 ? "start" : round === x1 ? "end" : "middle"));
  for (const [round, why] of marks) {
    const mark = svg("line", { class: "mark", x1: x(round), x2: x(round), y1: TOP, y2: HEIGHT - BOTTOM });
    const title = svg("title", {});
    title.textContent = why;
    mark.append(title);
    picture.append(mark);
  }
  series.forEach((points, at) => {
    for (const piece of pieces(points)) {
      if (piece.length === 1) picture.append(svg("circle", { class: `point run-${at}`, cx: x(piece[0][0]), cy: y(piece[0][1]), r: 2.5 }));
      else picture.append(svg("polyline", { class: `line run-${at}`, fill: "none", points: piece.map(([round, value]) => `${x(round).toFixed(1)},${y(value).toFixed(1)}`).join(" ") }));
    }
  });
  const cursor = svg("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, x1: -9, x2: -9 });
  picture.append(cursor);
  let now = null;
  const move = (round) => {
    if (round === null || !rounds.includes(round)) return;
    now = round;
    onRound(round);
  };
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * WIDTH;
    move(rounds.reduce((best, each) => (Math.abs(x(each) - at) < Math.abs(x(best) - at) ? each : best)));
  });
  picture.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, PageDown: 10, PageUp: -10 }[event.key];
    if (step === undefined && event.key !== "Home" && event.key !== "End") return;
    event.preventDefault();
    const index = now === null ? -1 : rounds.indexOf(now);
    const to = event.key === "Home" ? 0 : event.key === "End" ? rounds.length - 1 : index + step;
    move(rounds[Math.max(0, Math.min(rounds.length - 1, to))]);
  });
  return {
    figure: el("figure", { class: "lines" }, caption, picture),
    cursor: (round) => {
      now = round;
      const at = round === null ? -9 : x(round);
      cursor.setAttribute("x1", at);
      cursor.setAttribute("x2", at);
    },
  };
}

function text(x, y, value, anchor) {
  const made = svg("text", { x, y, "text-anchor": anchor });
  made.textContent = String(value);
  return made;
}

/** The stretches of a line between which something is missing. */
function pieces(points) {
  const found = [[]];
  for (const point of points) {
    if (finite(point[1])) found.at(-1).push(point);
    else if (found.at(-1).length) found.push([]);
  }
  return found.filter((piece) => piece.length);
}

function last(points) {
  return points.filter(([, value]) => finite(value)).at(-1)?.[1] ?? null;
}

function ends(values) {
  return values.reduce(([low, high], each) => [Math.min(low, each), Math.max(high, each)], [Infinity, -Infinity]);
}
