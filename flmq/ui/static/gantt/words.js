// Times and numbers as people read them. Pure.

/** Seconds as text; `step`: how fine the ticks beside it are. */
export function duration(seconds, step = null) {
  if (seconds == null || !Number.isFinite(seconds)) return "–";
  const size = Math.abs(seconds);
  if (size >= 7200) return trim(`${Math.trunc(seconds / 3600)} h ${Math.round((size % 3600) / 60)} min`);
  if (size >= 120) return trim(`${Math.trunc(seconds / 60)} min ${Math.round(size % 60)} s`);
  if (step !== null) {
    const decimals = Math.max(0, Math.min(3, -Math.floor(Math.log10(step))));
    return `${seconds.toFixed(decimals)} s`;
  }
  if (size < 0.0005) return "0 s";
  if (size < 1) return `${Math.round(seconds * 1000)} ms`;
  return `${seconds.toFixed(size < 10 ? 1 : 0)} s`;
}

const trim = (text) => text.replace(" 0 min", "").replace(/ 0 s$/, "");

/** Time of day in the reader's time zone; with the date if it is not today's. */
export function clock(ms) {
  if (ms == null) return "–";
  const at = new Date(ms);
  const two = (value) => String(value).padStart(2, "0");
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

export function bytes(count) {
  if (count == null) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let [value, unit] = [count, 0];
  while (value >= 1000 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${unit === 0 ? value : value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ${units[unit]}`;
}

export function number(value) {
  if (value == null) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return String(Number(value.toPrecision(4)));
}
