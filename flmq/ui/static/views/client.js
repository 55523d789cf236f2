// A client, at /runs/JOB/clients/ID: presence, tasks, speed against all, metrics, errors.

import { el, link, path, roundPath, styled } from "../gantt/dom.js";
import { course, presence } from "../gantt/small.js";
import { OUTCOMES, signed } from "../gantt/told.js";
import { clock, duration, number } from "../gantt/words.js";
import { Reloading } from "../reloading.js";

const PHASES = { __proto__: null, fit: "training", evaluate: "evaluation" };

const EVERY = 1000; // milliseconds between two readings, however much happens

export const title = (params) => `${params.client} in ${params.job}`;

export function mount(root, params, source) {
  styled();
  const api = `/api/runs/${encodeURIComponent(params.job)}/clients`;
  const heading = el(
    "div",
    { class: "gantt-head" },
    el("h1", {}, params.client),
    el("p", {}, "a client of ", link(path("runs", params.job), params.job)),
    el("nav", { "aria-label": "Clients" }, link(path("runs", params.job, "clients"), "all clients")),
  );
  const problem = el("p", { role: "alert", class: "problem", hidden: true });
  const body = el("div", { class: "client" });
  root.replaceChildren(heading, problem, body);
  const reloading = new Reloading(async (isClosed) => {
    const [client, all] = await Promise.all([
      source.getJSON(`${api}/${encodeURIComponent(params.client)}`),
      source.getJSON(api).catch(() => ({ clients: [] })),
    ]);
    if (!isClosed()) show(body, params.job, client, all.clients || []);
  }, problem);
  reloading.load();
  return {
    update(change) {
      if (!change || change.job === undefined || change.job === params.job) reloading.soon(EVERY);
    },
    unmount: () => reloading.close(),
  };
}

function show(body, job, client, all) {
  const kept = [...body.querySelectorAll("details")].map((each) => each.open);
  body.replaceChildren(
    facts(client, all),
    section("Presence", presence(client.presence || [], client.tasks || []), "Its connection to the server's broker, as the server heard of it."),
    speed(job, client),
    metrics(client),
    errors(job, client),
    tasks(job, client),
  );
  [...body.querySelectorAll("details")].forEach((each, index) => (each.open = kept[index] ?? each.open));
}

function facts(client, all) {
  const medians = all.map((each) => each.median_seconds).filter((each) => each != null).sort((a, b) => a - b);
  const middle = medians.length ? medians[medians.length >> 1] : null;
  const list = [["now", `${client.status ?? "not known"}${client.since_ms == null ? "" : ` since ${clock(client.since_ms)}`}`]];
  if (client.version) list.push(["flmq", client.version]);
  list.push(["answered", number(client.answered)], ["failed", number(client.failed)]);
  list.push(["no reply", number(client.silent)], ["late", number(client.late)]);
  if (client.median_seconds != null) {
    const factor = middle ? ` (${(client.median_seconds / middle).toFixed(1)}× the median of all)` : "";
    list.push(["replies after", `${duration(client.median_seconds)}${factor}`]);
  }
  if (client.offset_ms != null) {
    const error = client.offset_error_ms ?? (client.tasks || []).at(-1)?.offset_error_ms;
    list.push(["its clock", signed(client.offset_ms) + (error == null ? "" : ` (± ${duration(error / 1000)})`)]);
  }
  return el("p", { class: "facts" }, ...list.map(([name, value]) => el("span", {}, `${name} `, el("b", {}, value))));
}

function section(name, ...content) {
  const [first, note] = content;
  return el("section", { class: "gantt-phase", "aria-label": name }, el("h2", {}, name), first, note ? el("p", { class: "hint" }, note) : null);
}

/** Seconds of each task, with the median of all clients where it is told. */
function speed(job, client) {
  const found = { __proto__: null };
  for (const task of client.tasks || []) {
    const begun = task.opened_ms ?? task.published_ms;
    const seconds = task.seconds ?? (task.received_ms != null && begun != null ? (task.received_ms - begun) / 1000 : null);
    if (seconds === null) continue;
    const phase = (found[task.phase] ??= { own: [], others: [] });
    phase.own.push([task.round, Math.max(0, seconds)]);
    const others = task.median_seconds;
    if (others != null) phase.others.push([task.round, others]);
  }
  const charts = Object.entries(found).map(([phase, { own, others }]) =>
    course(`Seconds to the reply in ${PHASES[phase] ?? phase}`, own, others, duration),
  );
  return section("Speed", charts.length ? el("div", { class: "courses" }, ...charts) : empty("It has answered nothing yet."));
}

function metrics(client) {
  const charts = Object.entries(client.metrics || {}).map(([name, points]) => course(name, points, [], number));
  return section("Metrics", charts.length ? el("div", { class: "courses" }, ...charts) : empty("It has reported no metrics."));
}

function errors(job, client) {
  const list = (client.errors || []).slice().reverse().map((each) =>
    el(
      "li",
      {},
      link(roundPath(job, each.round), `round ${each.round}`),
      `, ${PHASES[each.phase] ?? each.phase}, ${clock(each.at_ms)}: `,
      el("strong", {}, each.reason || "no reason given"),
      each.detail ? el("details", {}, el("summary", {}, "Traceback"), el("pre", { tabindex: 0 }, each.detail)) : null,
    ),
  );
  return section("Last errors", list.length ? el("ul", { class: "errors" }, ...list) : empty("None."));
}

function tasks(job, client) {
  const rows = (client.tasks || []).slice().reverse().map((task) => {
    const said = (from, to) => (from == null || to == null ? "–" : duration(Math.max(0, to - from) / 1000));
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, link(roundPath(job, task.round), `round ${task.round}`)),
      el("td", {}, PHASES[task.phase] ?? task.phase),
      el("td", {}, OUTCOMES[task.outcome] ?? task.outcome),
      ...[
        clock(task.published_ms),
        said(task.published_ms, task.taken_ms),
        said(task.taken_ms, task.training_started_ms),
        said(task.training_started_ms, task.training_ended_ms),
        said(task.training_ended_ms, task.received_ms),
        number(task.examples),
      ].map((text) => el("td", { class: "num" }, text)),
      el("td", {}, [task.deliveries > 1 ? `taken ${task.deliveries} times` : "", task.deaths ? `died ${task.deaths} times` : "", task.reason || ""].filter(Boolean).join("; ")),
    );
  });
  const names = ["round", "phase", "outcome", "published", "waiting", "model", "training", "upload", "examples", "remarks"];
  const table = el(
    "div",
    { class: "gantt-table", tabindex: 0, role: "region", "aria-label": "Tasks" },
    el("table", {}, el("thead", {}, el("tr", {}, ...names.map((name, index) => el("th", { scope: "col", class: index > 2 && index < 9 ? "num" : null }, name)))), el("tbody", {}, ...rows)),
  );
  return section("Tasks", rows.length ? table : empty("It has been asked for nothing yet."));
}

const empty = (text) => el("p", { class: "hint" }, text);
