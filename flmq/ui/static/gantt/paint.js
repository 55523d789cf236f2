// Draws the rows of a Gantt that are in sight onto a canvas. Knows geometry and colours alone.

import { ticksOf } from "./rows.js";
import { duration } from "./words.js";

export const AXIS = 26;

const NAMES = [
  "waiting", "own", "lost", "model", "training", "upload", "unknown", "counted", "text", "muted", "line",
  "selected", "slow", "failed", "silent", "late", "away", "surface",
];

/** The colours in force, from the custom properties of the page. */
export function coloursOf(element) {
  const style = getComputedStyle(element);
  const found = {};
  for (const name of NAMES) found[name] = style.getPropertyValue(`--gantt-${name}`).trim() || "#888";
  found.font = style.fontFamily || "system-ui, sans-serif";
  return found;
}

/**
 * Draw rows from `scene.top` on.
 *
 * scene: {rows, top, rowHeight, width, height, label, view: {from, to}, opened, closed, deadline,
 *         median, now, selected, slowest, colours}
 */
export function paint(context, scene) {
  const { width, height, rowHeight, top, rows, colours, label } = scene;
  context.clearRect(0, 0, width, height);
  const plot = { left: label, right: width - 8, width: Math.max(1, width - 8 - label) };
  const x = (at) => plot.left + ((at - scene.view.from) / (scene.view.to - scene.view.from)) * plot.width;
  const place = { x, plot, scene };
  axis(context, place);
  context.save();
  context.beginPath();
  context.rect(0, AXIS, width, height - AXIS);
  context.clip();
  if (scene.selected >= 0) {
    context.fillStyle = colours.selected;
    context.fillRect(0, AXIS + scene.selected * rowHeight - top, width, Math.max(2, rowHeight));
  }
  lines(context, place);
  const first = Math.max(0, Math.floor(top / rowHeight));
  const last = Math.min(rows.length, Math.ceil((top + height - AXIS) / rowHeight));
  const every = Math.ceil(12 / rowHeight);
  for (let index = first; index < last; index += 1) {
    const y = AXIS + index * rowHeight - top;
    bars(context, place, rows[index], y);
    if (index % every === 0) name(context, place, rows[index], y);
  }
  context.restore();
}

function axis(context, { x, plot, scene }) {
  const { colours, height } = scene;
  const zero = scene.opened ?? scene.view.from;
  const seconds = [(scene.view.from - zero) / 1000, (scene.view.to - zero) / 1000];
  const { ticks, step } = ticksOf(...seconds, plot.width / 80);
  context.font = `11px ${colours.font}`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (const tick of ticks) {
    const at = Math.round(x(zero + tick * 1000)) + 0.5;
    context.fillStyle = colours.line;
    context.fillRect(at - 0.5, AXIS - 5, 1, height);
    context.fillStyle = colours.muted;
    const text = duration(tick, step);
    const half = context.measureText(text).width / 2;
    context.fillText(text, Math.min(Math.max(at, plot.left + half), plot.right - half), AXIS / 2 - 1);
  }
}

function lines(context, { x, plot, scene }) {
  const { colours, height } = scene;
  const draw = (at, colour, dash) => {
    if (at == null || at < scene.view.from || at > scene.view.to) return;
    context.strokeStyle = colour;
    context.setLineDash(dash);
    context.lineWidth = 1.5;
    context.beginPath();
    const where = Math.round(x(at)) + 0.5;
    context.moveTo(where, AXIS);
    context.lineTo(where, height);
    context.stroke();
    context.setLineDash([]);
  };
  if (scene.median !== null && scene.opened != null) {
    draw(scene.opened + scene.median * 1000, colours.muted, [2, 3]);
  }
  draw(scene.deadline, colours.failed, [6, 3]);
  draw(scene.closed, colours.text, []);
  if (scene.closed == null) draw(scene.now, colours.muted, [1, 2]);
  context.fillStyle = colours.line;
  context.fillRect(plot.left, AXIS, 1, height);
}

function bars(context, { x, plot, scene }, row, y) {
  const { colours, rowHeight, view } = scene;
  const gap = rowHeight >= 14 ? 3 : rowHeight >= 5 ? 1 : 0;
  const [up, tall] = [y + gap, Math.max(1, rowHeight - 2 * gap)];
  const end = scene.closed ?? scene.now;
  const box = (from, to, low = up, high = tall) => {
    const left = Math.max(plot.left, x(from));
    const right = Math.min(plot.right, x(to));
    if (right < plot.left || left > plot.right || from > view.to) return;
    context.fillRect(left, low, Math.max(1, right - left), high);
  };
  for (const { step, from, to } of row.segments) {
    const lost = to === null && scene.closed != null;
    context.fillStyle = colours[step];
    context.globalAlpha = lost ? 0.35 : 1;
    const thin = step === "waiting" || step === "own" ? Math.max(1, Math.round(tall * 0.4)) : tall;
    const till = to ?? Math.max(from, end);
    box(from, till, up + (tall - thin) / 2, thin);
    if (step === "lost") hatch(context, x(from), x(till), up, tall, colours.surface, plot);
    if (lost) hatch(context, x(from), Math.min(plot.right, x(till)), up, tall, colours.silent, plot);
  }
  context.globalAlpha = 1;
  for (const [from, to] of row.away) {
    const [left, right] = [x(from ?? view.from), x(to ?? Math.max(end, view.to))];
    context.fillStyle = colours.away;
    box(from ?? view.from, to ?? Math.max(end, view.to), up, tall);
    hatch(context, left, Math.min(plot.right, right), up, tall, colours.surface, plot);
    if (rowHeight >= 14 && right - left > 90) {
      const at = Math.max(left, plot.left) + 5;
      boxed(context, colours, "away", at, y + rowHeight / 2, colours.muted);
    }
  }
  const counted = row.part.counted_ms;
  if (counted != null && row.outcome === "accepted" && rowHeight >= 5) {
    context.fillStyle = colours.counted;
    box(counted, counted, up - 1, tall + 2);
  }
  for (const aside of [row.late, row.duplicate]) {
    if (!aside || aside.received_ms == null) continue;
    const at = Math.min(x(aside.received_ms), plot.right - 6);
    diamond(context, Math.max(at, plot.left + 6), y + rowHeight / 2, Math.min(6, rowHeight / 2), colours.late);
  }
  if (rowHeight >= 14) remark(context, { x, plot, scene }, row, y);
}

/** What stands behind a row's bar: how much over the median, what became of it. */
function remark(context, { x, plot, scene }, row, y) {
  const { colours, rowHeight } = scene;
  const notes = [];
  if (row.outcome === "failed") notes.push(["✕ failed", colours.failed]);
  if (row.outcome === "rejected") notes.push(["✕ rejected", colours.failed]);
  if (row.outcome === "silent") notes.push(["○ no reply", colours.silent]);
  if (row.outcome === "unroutable") notes.push(["○ no queue", colours.silent]);
  if (row.late || row.outcome === "late") {
    const late = (row.late ?? row.part).late_by;
    notes.push([late == null ? "◆ late" : `◆ ${duration(late)} late`, colours.late]);
  }
  const deaths = Math.max(row.part.deaths ?? 0, row.late?.deaths ?? 0);
  if (deaths) notes.push([`✝ its process died${deaths > 1 ? ` ${deaths}×` : ""}`, colours.failed]);
  if (row.part.deliveries > 1) notes.push([`↻ taken ${row.part.deliveries}×`, colours.late]);
  context.font = `600 11px ${colours.font}`;
  if (row === scene.slowest) {
    const text = [`+${duration(row.over)} over the median`, ...notes.map(([note]) => note)].join("   ");
    const from = Math.max(plot.left, x(scene.opened + scene.median * 1000)) + 8;
    const room = Math.min(plot.right, x(row.part.received_ms)) - from;
    // It stands where the excess begins, on the bar itself, if there is room.
    if (room > context.measureText(text).width + 8) {
      written(context, text, from, y + rowHeight / 2, colours.surface);
      return;
    }
    notes.unshift([`+${duration(row.over)} over the median`, colours.slow]);
  }
  if (!notes.length) return;
  const ends = row.segments.map((each) => each.to ?? scene.closed ?? scene.now);
  for (const [, to] of row.away) ends.push(to ?? scene.closed ?? scene.now);
  const total = notes.reduce((sum, [text]) => sum + context.measureText(text).width + 10, 0);
  let at = ends.length ? Math.max(plot.left, x(Math.max(...ends))) + 8 : plot.left + 8;
  at = Math.max(plot.left + 4, Math.min(at, plot.right - total));
  for (const [text, colour] of notes) {
    boxed(context, colours, text, at, y + rowHeight / 2, colour);
    at += context.measureText(text).width + 10;
  }
}

function boxed(context, colours, text, left, middle, colour) {
  context.font = `600 11px ${colours.font}`;
  const width = context.measureText(text).width;
  context.fillStyle = colours.surface;
  context.fillRect(left - 3, middle - 7, width + 6, 14);
  written(context, text, left, middle, colour);
}

function written(context, text, left, middle, colour) {
  context.textAlign = "left";
  context.textBaseline = "middle";
  context.fillStyle = colour;
  context.fillText(text, left, middle + 0.5);
}

function name(context, { scene }, row, y) {
  const { colours, label, rowHeight } = scene;
  context.font = `${row === scene.slowest ? "600 " : ""}12px ${colours.font}`;
  context.textAlign = "left";
  context.textBaseline = "middle";
  const missing = row.outcome !== "accepted" && row.outcome !== "open";
  context.fillStyle = row === scene.slowest ? colours.slow : missing ? colours.failed : colours.text;
  context.fillText(fitting(context, row.ask, label - 12), 4, y + Math.max(6, rowHeight / 2));
}

const fitted = new Map();

function fitting(context, text, width) {
  const key = `${context.font}|${Math.round(width)}|${text}`;
  const known = fitted.get(key);
  if (known !== undefined) return known;
  let short = text.slice(0, 200);
  if (context.measureText(short).width > width) {
    // The end tells names apart more often than the middle does.
    let kept = Math.max(2, Math.floor((short.length * width) / context.measureText(short).width));
    do {
      const head = Math.ceil(kept / 2);
      short = `${text.slice(0, head)}…${text.slice(text.length - (kept - head) || text.length)}`;
      kept -= 1;
    } while (kept > 1 && context.measureText(short).width > width);
  }
  if (fitted.size > 5000) fitted.clear();
  fitted.set(key, short);
  return short;
}

function hatch(context, left, right, up, tall, colour, plot) {
  const [from, to] = [Math.max(left, plot.left), Math.min(right, plot.right)];
  if (to - from < 2 || tall < 4) return;
  context.save();
  context.globalAlpha = 0.8;
  context.beginPath();
  context.rect(from, up, to - from, tall);
  context.clip();
  context.strokeStyle = colour;
  context.lineWidth = 1;
  context.beginPath();
  for (let at = from - tall; at < to; at += 5) {
    context.moveTo(at, up + tall);
    context.lineTo(at + tall, up);
  }
  context.stroke();
  context.restore();
}

function diamond(context, x, y, size, colour) {
  context.fillStyle = colour;
  context.beginPath();
  context.moveTo(x, y - size);
  context.lineTo(x + size, y);
  context.lineTo(x, y + size);
  context.lineTo(x - size, y);
  context.fill();
}
