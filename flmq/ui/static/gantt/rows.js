// The rows of a phase's Gantt: what is drawn of each ask, and in which order. Pure.
//
// Times are Unix milliseconds by the server's clock, as the API gives them.

export const STEPS = ["waiting", "own", "model", "training", "upload"];
export const STEP_NAMES = {
  waiting: "waiting in the queue",
  own: "waiting for its other tasks",
  lost: "lost with a process that died",
  model: "reading the model",
  training: "training",
  upload: "sending the reply",
  unknown: "under way (no times told)",
};
export const ORDERS = {
  slowest: "slowest first",
  client: "by name",
  outcome: "by outcome",
  taken: "by when taken",
  training: "longest training first",
};
const OUTCOME_ORDER = ["silent", "unroutable", "failed", "rejected", "open", "late", "accepted"];
const NEVER = Number.POSITIVE_INFINITY;

/** One row an ask; further replies to it (late, duplicate) stand in its row. */
export function rowsOf(phase) {
  const rows = new Map();
  const asides = [];
  for (const part of phase.parts || []) {
    const ask = part.ask || part.client;
    const aside = part.outcome === "duplicate" || part.outcome === "late";
    if (aside) asides.push(part);
    if (!aside || !rows.has(ask)) {
      if (!rows.has(ask) || !aside) rows.set(ask, row(part, phase, rows.get(ask)));
    }
  }
  for (const part of asides) {
    const own = rows.get(part.ask || part.client);
    own[part.outcome] = part;
  }
  const all = [...rows.values()];
  const middle = median(all.filter((each) => each.outcome === "accepted").map((each) => each.seconds));
  for (const each of all) {
    each.over = each.seconds === null || middle === null ? null : each.seconds - middle;
  }
  return { rows: all, median: middle };
}

function row(part, phase, earlier) {
  // Asks of a stream are opened one by one.
  const opened = phase.streamed ? part.published_ms : (phase.opened_ms ?? part.published_ms);
  const outcome = part.outcome || "open";
  const received = part.received_ms ?? null;
  let seconds = null;
  if (received !== null && opened != null) seconds = Math.max(0, (received - opened) / 1000);
  const own = {
    client: part.client,
    ask: part.ask || part.client,
    part,
    outcome,
    seconds,
    segments: segmentsOf(part, phase),
    away: (part.away || []).filter(([from, to]) => overlaps(from, to, phase)),
    late: null,
    duplicate: null,
  };
  if (earlier) Object.assign(own, { late: earlier.late, duplicate: earlier.duplicate });
  return own;
}

function overlaps(from, to, phase) {
  const before = phase.closed_ms == null || from == null || from <= phase.closed_ms;
  return before && (to == null || phase.opened_ms == null || to >= phase.opened_ms);
}

/** [{step, from, to}]: `to` is null for what was going on when last heard of. */
function segmentsOf(part, phase) {
  const times = [
    part.published_ms ?? phase.opened_ms ?? null,
    part.taken_ms ?? null,
    part.begun_ms ?? part.taken_ms ?? null,
    part.training_started_ms ?? null,
    part.training_ended_ms ?? null,
    part.received_ms ?? null,
  ];
  const here = times[5];
  const known = times.slice(1, 5).some((at) => at !== null);
  if (!known) {
    if (times[0] === null) return [];
    return [{ step: here === null ? "waiting" : "unknown", from: times[0], to: here }];
  }
  // What a process did that died in the task is not told: its time ends where the last one begins.
  const lost = part.deaths > 0 && (part.begun_ms == null ? "model" : "own");
  const named = (index) => (STEPS[index] === lost ? "lost" : STEPS[index]);
  const segments = [];
  let from = times[0];
  for (let index = 1; index < times.length; index += 1) {
    if (times[index] === null) continue;
    const to = Math.max(from ?? times[index], times[index]);
    if (from !== null && to > from) segments.push({ step: named(index - 1), from, to });
    from = to;
  }
  const last = times.findLastIndex((at) => at !== null);
  if (last < 5) segments.push({ step: named(last), from, to: null });
  return segments;
}

/** Seconds by step, of those that are over. */
export function spans(own) {
  const found = {};
  for (const { step, from, to } of own.segments) {
    if (to !== null) found[step] = (found[step] || 0) + (to - from) / 1000;
  }
  const { received_ms: received, counted_ms: counted } = own.part;
  if (received != null && counted != null) found.counted = Math.max(0, (counted - received) / 1000);
  return found;
}

export function inOrder(rows, order) {
  const byName = (a, b) => a.ask.localeCompare(b.ask, undefined, { numeric: true });
  const keys = {
    slowest: (each) => -(each.outcome === "unroutable" ? 0 : (each.seconds ?? NEVER)),
    outcome: (each) => OUTCOME_ORDER.indexOf(each.outcome),
    taken: (each) => each.part.taken_ms ?? NEVER,
    training: (each) => -(spans(each).training ?? -1),
  };
  const key = keys[order];
  if (!key) return [...rows].sort(byName);
  const keyed = rows.map((each) => [key(each), each]);
  keyed.sort(([a, x], [b, y]) => (a === b ? byName(x, y) : a < b ? -1 : 1));
  return keyed.map(([, each]) => each);
}

export function matching(rows, text) {
  const wanted = text.trim().toLowerCase();
  return wanted ? rows.filter((each) => each.ask.toLowerCase().includes(wanted)) : rows;
}

/** The span of time to show at first: from opening to closing, and a little of what came after. */
export function domainOf(phase, rows, now) {
  const froms = [phase.opened_ms, ...rows.map((each) => each.segments[0]?.from)];
  const from = least(froms) ?? now;
  let to = phase.closed_ms ?? now;
  for (const each of rows) {
    if (phase.closed_ms == null) break;
    for (const at of [each.part.counted_ms, each.part.received_ms]) {
      if (at != null && each.outcome === "accepted") to = Math.max(to, at);
    }
  }
  const length = Math.max(50, to - from);
  return { from, to: from + length * 1.04 };
}

/** All that there is to see, for zooming out. */
export function extentOf(phase, rows, now) {
  const { from, to } = domainOf(phase, rows, now);
  let [first, last] = [from, Math.max(to, phase.deadline_ms ?? 0)];
  for (const each of rows) {
    for (const [begin, end] of each.away) {
      first = Math.min(first, begin ?? first);
      last = Math.max(last, end ?? last);
    }
    last = Math.max(last, each.late?.received_ms ?? 0, each.duplicate?.received_ms ?? 0);
  }
  const most = (to - from) * 20;
  return { from: Math.max(first, from - most), to: Math.min(last, to + most) * 1 };
}

export function median(values) {
  const known = values.filter((each) => each !== null).sort((a, b) => a - b);
  if (!known.length) return null;
  const half = known.length >> 1;
  return known.length % 2 ? known[half] : (known[half - 1] + known[half]) / 2;
}

function least(values) {
  const known = values.filter((each) => each != null);
  let found = null;
  for (const each of known) if (found === null || each < found) found = each;
  return found;
}

/** Ticks at round numbers of seconds: [seconds since the opening]. */
export function ticksOf(fromSeconds, toSeconds, most) {
  const rough = (toSeconds - fromSeconds) / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
  if (rough > 10) {
    const nice = [10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400];
    step = nice.find((each) => each >= rough) ?? Math.ceil(rough / 86400) * 86400;
  }
  const ticks = [];
  for (let at = Math.ceil(fromSeconds / step) * step; at <= toSeconds; at += step) ticks.push(at);
  return { ticks, step };
}
