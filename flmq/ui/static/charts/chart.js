// A chart over rounds, in SVG: stacked bars or lines, marks, crosshair, range, keys.

import { el } from "../gantt/dom.js";
import { bucketed, ends, thinned, ticks } from "./scale.js";

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 52;
const BOTTOM = 18;
const TOP = 10;
const WIDEST = 26;

export function svg(tag, props = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(props)) if (value !== null) made.setAttribute(name, String(value));
  made.append(...children);
  return made;
}

export class Chart {
  /**
   * `kind`: "bars" or "lines"; `series`: [{name, colour, of(round) -> number or null}], from the
   * bottom up; `write(value)` and, for the axis, `tick(value)`; `weight(round)`: how bad a round is,
   * where several share a bar.
   */
  constructor(group, { name, kind, series, write, tick, weight, height = 150 }) {
    Object.assign(this, { group, name, kind, series, write, height, weight });
    this.tick = tick ?? write;
    // One line alone needs no key, only its value.
    const alone = series.length === 1 && kind === "lines";
    this.keys = series.map((each) => {
      const key = el("span", { class: alone ? "alone" : "key" });
      key.style.setProperty("--c", `var(--${each.colour})`);
      return key;
    });
    this.where = el("span", { class: "where" });
    this.picture = svg("svg", { height, role: "img", tabindex: 0 });
    this.root = el("figure", { class: "chart" }, el("figcaption", {}, el("h3", {}, name), alone ? this.keys : null, this.where, alone ? null : el("span", { class: "keys" }, ...this.keys)), this.picture);
    this.listen();
  }

  listen() {
    const on = (event, act) => this.picture.addEventListener(event, act);
    on("pointermove", (event) => this.moved(event));
    on("pointerleave", () => this.drag ?? this.group.point(null));
    on("pointerdown", (event) => {
      if (event.button) return;
      this.drag = { x: event.offsetX, round: this.roundAt(event) };
      this.picture.setPointerCapture?.(event.pointerId);
    });
    on("pointerup", (event) => this.released(event));
    on("pointercancel", () => this.end());
    on("dblclick", () => this.group.zoom(null));
    on("focus", () => this.group.at === null && this.picture.matches(":focus-visible") && this.group.step(0));
    on("blur", () => this.group.point(null));
    on("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -1e9, End: 1e9 }[event.key];
      if (by !== undefined) this.group.step(by);
      else if (event.key === "Enter" && this.group.at !== null) this.group.open(this.group.at);
      else if (event.key === "Escape") this.group.zoom(null);
      else return;
      event.preventDefault();
    });
  }

  moved(event) {
    this.group.point(this.roundAt(event));
    if (!this.drag || !this.brush) return;
    const from = Math.min(this.drag.x, event.offsetX);
    this.brush.setAttribute("x", from);
    this.brush.setAttribute("width", Math.abs(event.offsetX - this.drag.x));
  }

  released(event) {
    const { drag } = this;
    this.end();
    const round = this.roundAt(event);
    if (!drag || round === null) return;
    if (Math.abs(event.offsetX - drag.x) < 5) this.group.open(round);
    else if (Math.abs(round - drag.round) >= 1) this.group.zoom([Math.min(round, drag.round), Math.max(round, drag.round)]);
  }

  end() {
    this.drag = null;
    this.brush?.setAttribute("width", 0);
  }

  roundAt(event) {
    const seen = this.group.inSight();
    if (!seen.length || !this.scale) return null;
    const wanted = this.scale.invert(event.offsetX);
    let best = seen[0].round;
    for (const each of seen) if (Math.abs(each.round - wanted) < Math.abs(best - wanted)) best = each.round;
    return best;
  }

  draw() {
    const width = this.picture.clientWidth;
    if (!width) return;
    const seen = this.group.inSight();
    const [first, last] = this.group.ends();
    const [right, plot] = [width - 6, width - 6 - LEFT];
    const unit = plot / (last - first + 1);
    const x = (round) => LEFT + (round - first + 0.5) * unit;
    this.scale = { x, invert: (at) => (at - LEFT) / unit + first - 0.5 };
    const range = this.kind === "bars" ? this.stackEnds(seen) : ends(this.values(seen));
    const parts = [];
    if (range === null || !seen.length) {
      parts.push(text(LEFT, this.height / 2, "nothing yet", "start"));
      this.y = null;
    } else {
      const floor = this.height - BOTTOM;
      const y = (value) => floor - ((value - range[0]) / (range[1] - range[0])) * (floor - TOP);
      this.y = y;
      for (const value of ticks(range[0], range[1], 3)) {
        parts.push(svg("line", { class: "grid", x1: LEFT, x2: right, y1: y(value), y2: y(value) }));
        parts.push(text(LEFT - 6, y(value) + 4, this.tick(value), "end"));
      }
      for (const value of ticks(first, last, Math.max(2, plot / 90))) {
        if (Number.isInteger(value)) parts.push(text(Math.min(x(value), width - 4 * String(value).length), this.height - 4, String(value), "middle"));
      }
      parts.push(...this.marks(x, right));
      parts.push(...(this.kind === "bars" ? this.bars(seen, x, y, unit) : this.lines(seen, x, y, plot)));
    }
    this.hair = svg("line", { class: "hair", y1: TOP - 4, y2: this.height - BOTTOM });
    this.brush = svg("rect", { class: "brush", x: 0, y: TOP, width: 0, height: this.height - BOTTOM - TOP });
    this.picture.replaceChildren(...parts, this.hair, this.brush);
    this.picture.setAttribute("aria-label", `${this.name}, rounds ${first} to ${last}. ${seen.length ? this.words(this.latest(seen)) : "nothing yet"}. Arrow keys go from round to round.`);
    this.point(this.group.at);
  }

  values(seen) {
    return seen.flatMap((each) => this.series.map((one) => one.of(each)).filter((value) => Number.isFinite(value)));
  }

  stackEnds(seen) {
    const sums = seen.map((each) => this.series.reduce((sum, one) => sum + (one.of(each) || 0), 0));
    const most = Math.max(0, ...sums.slice(0, 100000));
    return most > 0 ? [0, most * 1.04] : null;
  }

  bars(seen, x, y, unit) {
    const bars = bucketed(seen, Math.max(1, Math.floor((unit * seen.length) / 3)), this.weight ?? (() => 0));
    const drawn = this.series.map(() => []);
    for (const { shown, from, to } of bars) {
      const [start, end] = [x(from - 0.5), x(to + 0.5)];
      // Narrow bars stand side by side on whole pixels: gaps would flicker. Wide ones are no walls.
      const wide = end - start >= 6;
      const width = wide ? Math.min(WIDEST, (end - start) * 0.76) : Math.max(1, Math.round(end) - Math.round(start));
      const left = wide ? (start + end - width) / 2 : Math.round(start);
      let sum = 0;
      this.series.forEach((one, index) => {
        const value = one.of(shown) || 0;
        if (value <= 0) return;
        const [low, high] = [y(sum), y(sum + value)];
        drawn[index].push(`M${n(left)} ${n(low)}V${n(high)}h${n(width)}V${n(low)}z`);
        sum += value;
      });
    }
    return this.series.map((one, index) => coloured(svg("path", { d: drawn[index].join("") }), "fill", one.colour));
  }

  lines(seen, x, y, plot) {
    return this.series.flatMap((one) => {
      const points = seen.map((each) => [each.round, one.of(each)]).filter(([, value]) => Number.isFinite(value));
      const few = points.length <= 40;
      const kept = thinned(points, Math.max(50, plot * 1.5));
      let gap = true;
      let before = null;
      const d = kept.map(([round, value]) => {
        gap = before === null || (points.length === kept.length && round - before > 1);
        before = round;
        return `${gap ? "M" : "L"}${n(x(round))} ${n(y(value))}`;
      });
      const line = coloured(svg("path", { class: "line", d: d.join("") }), "stroke", one.colour);
      const dots = few ? points.map(([round, value]) => coloured(svg("circle", { cx: n(x(round)), cy: n(y(value)), r: 2 }), "fill", one.colour)) : [];
      return [line, ...dots];
    });
  }

  marks(x, right) {
    const found = [];
    for (const mark of this.group.marks) {
      const at = x(mark.from);
      if (at < LEFT - 1 || at > right + 1) continue;
      const until = mark.to == null ? at : Math.min(right, x(mark.to));
      if (until - at > 1) found.push(svg("rect", { class: "span", x: n(at), y: TOP, width: n(until - at), height: this.height - BOTTOM - TOP }));
      const title = svg("title");
      title.textContent = mark.text;
      found.push(svg("line", { class: "mark", x1: n(at), x2: n(at), y1: TOP, y2: this.height - BOTTOM }));
      found.push(svg("path", { class: "mark-flag", d: `M${n(at - 4)} ${TOP - 7}h8l-4 7z` }, title));
    }
    return found;
  }

  /** Show a round's numbers, or the last one's. */
  point(round) {
    const seen = this.group.inSight();
    const chosen = round === null ? this.latest(seen) : seen.find((each) => each.round === round);
    if (this.hair && this.scale) {
      this.hair.style.display = round === null ? "none" : "";
      const at = round === null ? 0 : this.scale.x(round);
      this.hair.setAttribute("x1", at);
      this.hair.setAttribute("x2", at);
    }
    this.where.textContent = chosen && round !== null ? `round ${chosen.round}` : "";
    this.series.forEach((one, index) => {
      const value = chosen ? one.of(chosen) : null;
      this.keys[index].textContent = value == null ? one.name : `${one.name} ${this.write(value)}`;
      // What never was is not worth a key.
      this.keys[index].hidden = this.kind === "bars" && !value && !seen.some((each) => one.of(each));
    });
  }

  /** The last round that has anything to show; one that is open may not yet. */
  latest(seen) {
    return seen.findLast((each) => this.series.some((one) => one.of(each))) ?? seen.at(-1);
  }

  words(round) {
    const said = this.series.map((one) => [one.name, one.of(round)]).filter(([, value]) => value != null && value !== 0);
    return said.length ? `${this.name}, round ${round.round}: ${said.map(([name, value]) => `${name} ${this.write(value)}`).join(", ")}` : "";
  }
}

const n = (value) => Math.round(value * 10) / 10;

function coloured(element, property, colour) {
  element.style[property] = `var(--${colour})`;
  return element;
}

function text(x, y, content, anchor) {
  const made = svg("text", { x: n(x), y: n(y), "text-anchor": anchor });
  made.textContent = content;
  return made;
}
