// Times and values as people read them, beyond those of the Gantt. Pure.

import { clock } from "./gantt/words.js";

/** A point of time: the time of day today, else the date too. */
export function when(ms) {
  const at = new Date(ms);
  if (at.toDateString() === new Date().toDateString()) return clock(ms);
  const two = (value) => String(value).padStart(2, "0");
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}`;
}

/** A metric for an axis or a legend. */
export function measure(value) {
  if (value == null) return "–";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e6)) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}
