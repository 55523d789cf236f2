// The broker, at /broker: what is amiss, what waits in its queues, connections, dead letters.
// Its server asks the broker only while this view is open.

import { el, link, path, styled } from "../gantt/dom.js";
import { clock, number } from "../gantt/words.js";

const PERIOD = 5000;
const MOST = 50;
const MARKS = [
  ["bad", "amiss", "✕"],
  ["good", "ok", "✓"],
  ["none", "not known", "–"],
];
const WHAT = [
  [/^flmq\.dead$/, "could not be processed"],
  [/^flmq\.models$/, "stream of models"],
  [/^flmq\.models\./, "models for one client"],
  [/^flmq\.client\./, "tasks of one client"],
  [/^flmq\.replies\./, "replies of a job"],
  [/^flmq\.uploads\./, "chunks of replies of a job"],
  [/^flmq\.presence\./, "hellos and heartbeats"],
  [/^flmq\.lock\./, "held by the job's server"],
];

export const title = () => "Broker";

export function mount(root, params, source) {
  styled();
  const state = { told: null, search: "", most: MOST, opened: false };
  const problem = el("p", { role: "alert", class: "problem", hidden: true });
  const search = el("input", { type: "search", placeholder: "part of its name", on: { input: (event) => ((state.search = event.target.value), drawQueues()) } });
  const [checks, connections, dead] = [el("div"), el("div"), el("div")];
  const [rows, count] = [el("tbody"), el("output", { class: "muted" })];
  const more = el("button", { type: "button", hidden: true, on: { click: () => ((state.most += 200), drawQueues()) } }, "Show more");
  const queues = el(
    "section",
    { "aria-labelledby": "queues" },
    el("h2", { id: "queues" }, "Queues"),
    el("div", { class: "gantt-tools" }, el("label", {}, "Queue ", search), count),
    table("Queues of flmq", ["queue", "what", ["ready", 1], ["taken", 1], ["readers", 1], ["bytes", 1]], rows),
    more,
  );
  const where = el("p", { class: "muted" }, "Asking the broker …");
  root.replaceChildren(el("h1", {}, "Broker"), where, problem, checks, dead, queues, connections);
  queues.hidden = true;

  function draw() {
    const told = state.told;
    queues.hidden = told.broker === null;
    if (told.broker === null) {
      const [text, command] = split(told.how);
      where.replaceChildren(text);
      checks.replaceChildren(el("pre", {}, el("code", {}, command)));
    } else {
      where.replaceChildren(el("code", {}, told.broker || "not a broker's URL"), ` as of ${clock(told.at_ms)}`);
      const amiss = told.checks.filter((each) => each.ok === false);
      source.speak?.(amiss.length ? `${amiss.length} amiss at the broker` : "Nothing is amiss at the broker");
      checks.replaceChildren(section("findings", "Findings", ...findings(told.checks, state)));
      connections.replaceChildren(section("connections", "Connections", ofConnections(told)));
      drawQueues();
    }
    dead.replaceChildren(section("dead", "Dead letters", ...deadLetters(told)));
  }

  function drawQueues() {
    if (!state.told?.queues) return;
    const wanted = state.search.trim().toLowerCase();
    const found = state.told.queues.filter((each) => each.name.toLowerCase().includes(wanted));
    rows.replaceChildren(...found.slice(0, state.most).map(queueRow));
    if (!found.length) rows.append(el("tr", {}, el("td", { colspan: 6, class: "hint" }, state.told.queues.length ? "No queue has that in its name." : "No queue of flmq is known here.")));
    more.hidden = found.length <= state.most;
    const all = state.told.queues_total;
    count.textContent = state.told.management_problem
      ? "only those in use are known without the management API"
      : `${number(found.length)} shown, the deepest first${all > state.told.queues.length ? `, of ${number(all)}` : ""}`;
  }

  let [closed, timer, loading] = [false, null, false];
  async function load() {
    if (loading || closed) return;
    loading = true;
    clearTimeout(timer);
    try {
      if (!document.hidden || state.told === null) {
        const told = await source.getJSON("/api/broker");
        if (closed) return;
        state.told = told;
        problem.hidden = true;
        draw();
      }
    } catch (error) {
      problem.hidden = false;
      problem.textContent = error.message || String(error);
    } finally {
      loading = false;
      if (!closed) timer = setTimeout(load, PERIOD);
    }
  }
  load();
  return {
    update: () => {},
    unmount() {
      closed = true;
      clearTimeout(timer);
    },
  };
}

function findings(checks, state) {
  const amiss = checks.filter((each) => each.ok === false);
  const rest = checks.filter((each) => each.ok !== false);
  const unknown = rest.filter((each) => each.ok === null).length;
  const shown = (name, found) => table(name, ["", "what", "found"], el("tbody", {}, ...found.map(findingRow)));
  const others = el(
    "details",
    { open: state.opened, on: { toggle: (event) => (state.opened = event.target.open) } },
    el("summary", {}, `${rest.length - unknown} as they should be${unknown ? `, ${unknown} optional or not known` : ""}`),
    shown("Other findings", rest),
  );
  return [amiss.length ? shown("Amiss", amiss) : el("p", {}, "Nothing is amiss, by what `flmq doctor` asks of a broker."), others];
}

function findingRow(each) {
  const [kind, word, sign] = MARKS[each.ok === false ? 0 : each.ok === true ? 1 : 2];
  return el(
    "tr",
    {},
    el("td", { class: `sign ${kind}` }, el("span", { "aria-hidden": "true" }, sign), el("span", { class: "unseen" }, word)),
    el("th", { scope: "row" }, each.name),
    el("td", { class: "any" }, each.found, each.mend && each.ok !== true ? el("div", { class: "muted" }, "mend: ", el("code", {}, each.mend)) : null),
  );
}

function queueRow(each) {
  const what = WHAT.find(([pattern]) => pattern.test(each.name));
  const shown = (value) => el("td", { class: "num" }, value === null ? "–" : number(value));
  return el(
    "tr",
    {},
    el("th", { scope: "row", class: "any" }, each.name),
    el("td", {}, what ? what[1] : ""),
    shown(each.ready),
    shown(each.unacked),
    shown(each.consumers),
    shown(each.size),
  );
}

function ofConnections(told) {
  if (told.management_problem) return el("p", { class: "muted any" }, `Not known: ${told.management_problem}`);
  if (!told.connections.length) return el("p", { class: "muted" }, "None is known; the broker counts them anew every few seconds.");
  const row = (each) => el("tr", {}, el("th", { scope: "row", class: "any" }, each.user || "–"), el("td", {}, each.state || "–"), el("td", { class: "num" }, number(each.count)));
  return table("Connections by user", ["user", "state", ["connections", 1]], el("tbody", {}, ...told.connections.map(row)));
}

function deadLetters(told) {
  const lie = told.dead
    ? `${number(told.dead.ready)} ${told.dead.ready === 1 ? "message lies" : "messages lie"} in flmq.dead${told.dead.size ? `, ${number(told.dead.size)} bytes` : ""}.`
    : told.broker === null
      ? "How many lie in flmq.dead only the broker knows."
      : "How many lie in flmq.dead is not known: the broker does not answer, or has no such queue yet.";
  const how = "They are not looked at here, for RabbitMQ would mark them as delivered before. Below: what the servers of the latest runs sent there, and why, by their logs.";
  if (!told.refused.length) return [el("p", {}, lie), el("p", { class: "muted" }, "No server of the latest runs has refused a message.")];
  const row = (each) =>
    el(
      "tr",
      {},
      el("td", { class: "num" }, number(each.count)),
      el("td", { class: "any" }, each.reason),
      el("td", { class: "any" }, each.sender || "–"),
      el("td", { class: "any" }, each.queue),
      el("td", { class: "any" }, link(path("runs", each.job), each.job)),
      el("td", { class: "num" }, clock(each.at_ms)),
    );
  return [
    el("p", {}, lie),
    el("p", { class: "muted" }, how),
    table("Refused messages", [["count", 1], "why", "sent by", "came by", "run", ["last", 1]], el("tbody", {}, ...told.refused.map(row))),
  ];
}

function table(name, heads, body) {
  const head = (each) => (Array.isArray(each) ? el("th", { scope: "col", class: "num" }, each[0]) : el("th", { scope: "col" }, each));
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": name }, el("table", { class: "broker" }, el("thead", {}, el("tr", {}, ...heads.map(head))), body));
}

function section(id, heading, ...children) {
  return el("section", { "aria-labelledby": id }, el("h2", { id }, heading), ...children);
}

/** A text that ends in ": command". */
function split(text) {
  const at = text.lastIndexOf(": flmq ");
  return at < 0 ? [text, ""] : [`${text.slice(0, at)}. Start it with one:`, text.slice(at + 2)];
}
