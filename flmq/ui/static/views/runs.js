// All runs, at /: which run, how far, how well, who is there, who is in charge.

import { el, link, path } from "../gantt/dom.js";
import { bytes, duration, number } from "../gantt/words.js";
import { svg } from "../charts/chart.js";
import { when } from "../words.js";
import { Reloading } from "../reloading.js";

const MOST_METRICS = 4;

export const title = () => "Runs";

export function mount(root, params, source) {
  const body = el("tbody");
  const problem = el("p", { class: "problem", role: "alert", hidden: true });
  const search = el("input", { type: "search", "aria-label": "Find a run", placeholder: "find a run" });
  const compare = el("a", { href: "/compare", hidden: true }, "Compare");
  const table = el(
    "table",
    { class: "runs" },
    el("thead", {}, el("tr", {}, ...["", "run", "state", "rounds", "loss and metrics", "clients", "began", "disk"].map((name) => el("th", { scope: "col", class: ["disk"].includes(name) ? "num" : null }, name)))),
    body,
  );
  const empty = nothing();
  const reading = el("p", { class: "hint slowly", role: "status" }, "Reading the runs…");
  root.replaceChildren(el("div", { class: "head" }, el("h1", {}, "Runs"), el("div", { class: "end" }, compare, search)), problem, reading, table, empty);
  const chosen = new Set();
  let runs = [];
  const draw = () => {
    const wanted = search.value.trim().toLowerCase();
    const shown = runs.filter((run) => run.job.toLowerCase().includes(wanted));
    const focused = document.activeElement?.getAttribute("href");
    body.replaceChildren(...shown.map((run) => line(run, chosen, choose)));
    if (focused && body.contains(document.activeElement) === false) [...body.querySelectorAll("a")].find((each) => each.getAttribute("href") === focused)?.focus();
    table.hidden = !runs.length;
    empty.hidden = Boolean(runs.length);
  };
  const choose = () => {
    compare.hidden = chosen.size < 2;
    compare.href = `/compare?jobs=${[...chosen].map(encodeURIComponent).join(",")}`;
    compare.textContent = `Compare ${chosen.size}`;
  };
  const reloading = new Reloading(async (isClosed) => {
    try {
      ({ runs } = await source.getJSON("/api/runs"));
    } finally {
      reading.remove();
    }
    if (isClosed()) return;
    draw();
    const running = runs.filter((run) => run.state === "running").length;
    source.titled(running ? `${running} running` : "Runs");
  }, problem, 500);
  search.addEventListener("input", draw);
  table.hidden = empty.hidden = true;
  reloading.load();
  return { update: () => reloading.load(), unmount: () => reloading.close() };
}

function line(run, chosen, choose) {
  const box = el("input", { type: "checkbox", "aria-label": `compare ${run.job}`, checked: chosen.has(run.job), on: { change: (event) => {
    if (event.target.checked) chosen.add(run.job);
    else chosen.delete(run.job);
    choose();
  } } });
  const failed = run.error && run.state !== "running";
  const state = failed ? "failed" : run.state;
  const said = run.problem || run.error || (run.stopped_early && `stopped early: ${run.stopped_early}`);
  return el(
    "tr",
    {},
    el("td", {}, box),
    el("th", { scope: "row", class: "name" }, link(path("runs", run.job), run.job), el("div", { class: "hint" }, run.strategy)),
    el("td", {}, el("span", { class: `run-state ${state}` }, state), run.resumes ? el("div", { class: "hint" }, `resumed ${times(run.resumes)}`) : null, run.in_charge ? el("div", { class: "hint" }, `${run.in_charge.host}, process ${run.in_charge.pid}`) : null),
    el("td", { "data-name": "rounds" }, el("span", {}, run.num_rounds ? `${run.round} of ${run.num_rounds}` : String(run.round)), progress(run)),
    el("td", { "data-wide": "" }, el("div", { class: "sparks" }, ...sparks(run)), said ? el("div", { class: run.problem || failed ? "problem" : "hint" }, said) : null, run.digest ? el("div", { class: "hint digest", title: run.digest }, run.digest.slice(0, 12)) : null),
    el("td", { "data-name": "clients" }, clients(run)),
    el("td", {}, run.started_ms ? when(run.started_ms) : "", run.started_ms && run.ended_ms ? el("div", { class: "hint" }, `took ${duration((run.ended_ms - run.started_ms) / 1000)}`) : null),
    el("td", { class: "num" }, bytes(run.disk_bytes)),
  );
}

const times = (count) => ({ 1: "once", 2: "twice" })[count] ?? `${count} times`;

function clients(run) {
  if (run.waiting) return `waits: ${run.waiting.online} of ${run.waiting.needed} here`;
  const online = run.online == null ? "" : `${number(run.online)} online`;
  const asked = run.asked ? `${number(run.asked)} asked` : "";
  return [online, asked].filter(Boolean).join(", ");
}

function progress(run) {
  if (!run.num_rounds) return null;
  const bar = el("i");
  bar.style.width = `${Math.min(100, (100 * run.round) / run.num_rounds)}%`;
  return el("span", { class: "progress", "aria-hidden": "true" }, bar);
}

function sparks(run) {
  const names = Object.keys(run.courses || {}).slice(0, MOST_METRICS);
  return names.map((name) => {
    const points = run.courses[name];
    return el("span", { class: "spark" }, spark(points), el("span", {}, `${name} `, el("b", {}, number(points.at(-1)[1]))));
  });
}

function spark(points) {
  const values = points.map(([, value]) => value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const [first, last] = [points[0][0], points.at(-1)[0]];
  const x = (round) => 2 + (80 * (round - first)) / Math.max(1, last - first);
  const y = (value) => (high > low ? 20 - (18 * (value - low)) / (high - low) : 11);
  const picture = svg("svg", { viewBox: "0 0 84 22", "aria-hidden": "true" });
  picture.append(svg("polyline", { points: points.map(([round, value]) => `${x(round).toFixed(1)},${y(value).toFixed(1)}`).join(" ") }));
  picture.append(svg("circle", { cx: x(last), cy: y(values.at(-1)), r: 2 }));
  return picture;
}

function nothing() {
  const made = el("section", { class: "empty" }, el("h2", {}, "No runs here yet"), el("p", {}, "This page shows the runs in the folder that `flmq ui` was started with. A run appears here as soon as its server has begun:"), el("pre", {}, "flmq server app:server --job first\nflmq demo"), el("p", {}, "Elsewhere? Start the page with that folder: ", el("code", {}, "flmq ui --runs-dir FOLDER")));
  return made;
}
