// All clients of a run, at /runs/JOB/clients: who is there, who fails, who is slow.

import { clientPath, el, link, path, styled } from "../gantt/dom.js";
import { signed } from "../gantt/told.js";
import { clock, duration, number } from "../gantt/words.js";
import { Reloading } from "../reloading.js";

const COLUMNS = [
  ["client", "client", (each) => each.client, false],
  ["status", "now", (each) => each.status, false],
  ["answered", "answered", (each) => each.answered, true],
  ["failed", "failed", (each) => each.failed, true],
  ["silent", "no reply", (each) => each.silent, true],
  ["late", "late", (each) => each.late, true],
  ["median", "replies after (median)", (each) => each.median_seconds, true],
  ["offset", "its clock", (each) => each.offset_ms, true],
  ["version", "flmq", (each) => each.version, false],
  ["error", "last error", (each) => each.last_error, false],
];
const MOST = 200;

const EVERY = 1000; // milliseconds between two readings, however much happens

export const title = (params) => `Clients of ${params.job}`;

export function mount(root, params, source) {
  styled();
  const state = { sort: "median", down: true, search: "", all: [], most: MOST };
  const body = el("tbody");
  const count = el("output", { class: "count" });
  const problem = el("p", { role: "alert", class: "problem", hidden: true });
  const more = el("button", { type: "button", hidden: true, on: { click: () => draw({ most: state.most + 1000 }) } }, "Show more");
  const heads = COLUMNS.map(([key, name, , numeric]) =>
    el("th", { scope: "col", class: numeric ? "num" : null }, el("button", { type: "button", class: "sorts", on: { click: () => draw({ sort: key, down: state.sort === key ? !state.down : numeric }) } }, name)),
  );
  const search = el("input", { type: "search", placeholder: "part of its name", on: { input: (event) => draw({ search: event.target.value }) } });
  root.replaceChildren(
    el("div", { class: "gantt-head" }, el("h1", {}, "Clients"), el("p", {}, "of ", link(path("runs", params.job), params.job))),
    problem,
    el("div", { class: "gantt-tools" }, el("label", {}, "Client ", search), count),
    el("div", { class: "gantt-table tall", tabindex: 0, role: "region", "aria-label": "Clients" }, el("table", {}, el("thead", {}, el("tr", {}, ...heads)), body)),
    more,
  );
  function draw(changes = {}) {
    Object.assign(state, changes);
    const read = COLUMNS.find(([key]) => key === state.sort)[2];
    const wanted = state.search.trim().toLowerCase();
    const found = state.all.filter((each) => each.client.toLowerCase().includes(wanted));
    found.sort((a, b) => compared(read(a), read(b), state.down) || compared(a.client, b.client, false));
    heads.forEach((head, index) => {
      if (COLUMNS[index][0] === state.sort) head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    body.replaceChildren(...found.slice(0, state.most).map((each) => row(each, params.job)));
    if (!found.length) body.append(el("tr", {}, el("td", { colspan: COLUMNS.length, class: "hint" }, state.all.length ? "No client has that in its name." : "No client has been asked or heard of yet: start one with `flmq client`.")));
    more.hidden = found.length <= state.most;
    count.textContent = `${found.length.toLocaleString("en")} of ${state.all.length.toLocaleString("en")}`;
  }
  const reloading = new Reloading(async (isClosed) => {
    const { clients } = await source.getJSON(`/api/runs/${encodeURIComponent(params.job)}/clients`);
    if (!isClosed()) draw({ all: clients });
  }, problem);
  reloading.load();
  return {
    update(change) {
      if (!change || change.job === undefined || change.job === params.job) reloading.soon(EVERY);
    },
    unmount: () => reloading.close(),
  };
}

function row(each, job) {
  const cell = (text, numeric) => el("td", { class: numeric ? "num" : null }, text);
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, link(clientPath(job, each.client), each.client)),
    el("td", {}, el("span", { class: `status is-${each.status}` }, each.status ?? "not known"), each.since_ms == null ? "" : ` since ${clock(each.since_ms)}`),
    cell(number(each.answered), true),
    cell(number(each.failed), true),
    cell(number(each.silent), true),
    cell(number(each.late), true),
    cell(duration(each.median_seconds), true),
    cell(each.offset_ms == null ? "–" : signed(each.offset_ms), true),
    cell(each.version || "–"),
    el("td", { class: "last-error" }, each.last_error ? String(each.last_error.reason ?? each.last_error) : ""),
  );
}

function compared(a, b, down) {
  if (a === b) return 0;
  if (a === null || a === undefined) return 1;
  if (b === null || b === undefined) return -1;
  const order = typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a < b ? -1 : 1;
  return down ? -order : order;
}
