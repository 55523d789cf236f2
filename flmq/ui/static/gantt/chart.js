// The Gantt of one phase: a canvas over virtual rows, to scroll, zoom, search and step through.

import { AXIS, coloursOf, paint } from "./paint.js";
import { domainOf, extentOf, inOrder, matching, rowsOf } from "./rows.js";

const HEIGHTS = { normal: 22, dense: 8 };

export class Gantt {
  /**
   * `host`: where it goes; `told`: {select(row or null), open(row)}; `label`: for screen readers.
   */
  constructor(host, label, told) {
    this.told = told;
    this.phase = null;
    this.rows = [];
    this.shown = [];
    this.order = "slowest";
    this.search = "";
    this.density = "normal";
    this.view = null;
    this.selected = -1;
    this.scroller = document.createElement("div");
    this.scroller.className = "gantt";
    this.scroller.tabIndex = 0;
    this.scroller.setAttribute("role", "application");
    this.scroller.setAttribute("aria-roledescription", "Gantt chart");
    this.scroller.setAttribute("aria-label", label);
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("aria-hidden", "true");
    this.spacer = document.createElement("div");
    this.scroller.append(this.canvas, this.spacer);
    host.append(this.scroller);
    this.controller = new AbortController();
    this.listen();
    this.sizes = new ResizeObserver(() => this.draw());
    this.sizes.observe(this.scroller);
  }

  listen() {
    const options = { signal: this.controller.signal };
    const on = (name, act, more = {}) => this.scroller.addEventListener(name, act, { ...options, ...more });
    on("scroll", () => this.draw(), { passive: true });
    on("pointermove", (event) => this.moved(event));
    on("pointerleave", () => this.drag ?? this.select(-1));
    on("pointerdown", (event) => this.pressed(event));
    on("pointerup", (event) => this.released(event));
    on("pointercancel", () => (this.drag = null));
    on("wheel", (event) => this.wheeled(event), { passive: false });
    on("keydown", (event) => this.typed(event));
    on("focus", () => this.selected < 0 && this.scroller.matches(":focus-visible") && this.select(0));
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", () => this.recolour(), options);
    this.theme = new MutationObserver(() => this.recolour());
    this.theme.observe(document.documentElement, { attributes: true });
  }

  /** Show a phase, or what has changed of it; zoom, order and place stay. */
  show(phase, now) {
    const first = this.phase === null;
    this.phase = phase;
    this.now = now;
    const { rows, median } = rowsOf(phase);
    this.rows = rows;
    this.median = median;
    this.slowest = slowestOf(rows, median);
    if (first || !this.zoomed) this.view = domainOf(phase, rows, now);
    this.arrange();
  }

  tick(now) {
    this.now = now;
    if (!this.zoomed) this.view = domainOf(this.phase, this.rows, now);
    this.draw();
  }

  arrange(changes = {}) {
    const chosen = this.shown[this.selected]?.ask;
    Object.assign(this, changes);
    this.shown = inOrder(matching(this.rows, this.search), this.order);
    this.selected = chosen === undefined ? -1 : this.shown.findIndex((each) => each.ask === chosen);
    this.draw();
  }

  recolour() {
    this.colours = null;
    this.draw();
  }

  draw() {
    if (this.waits || !this.phase) return;
    this.waits = requestAnimationFrame(() => {
      this.waits = null;
      this.paint();
    });
  }

  paint() {
    const width = this.scroller.clientWidth;
    if (!width) return;
    const most = Math.max(160, Math.min(window.innerHeight * 0.68, 900));
    const count = Math.max(1, this.shown.length);
    const wanted = this.density === "all" ? (most - AXIS) / count : HEIGHTS[this.density];
    this.rowHeight = this.density === "all" ? Math.min(HEIGHTS.normal, wanted) : wanted;
    const height = Math.ceil(Math.min(most, AXIS + count * this.rowHeight + 2));
    this.scroller.style.height = `${height}px`;
    this.spacer.style.height = `${Math.max(0, AXIS + count * this.rowHeight - height)}px`;
    const scale = window.devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * scale) || this.canvas.height !== Math.round(height * scale)) {
      this.canvas.width = Math.round(width * scale);
      this.canvas.height = Math.round(height * scale);
      this.canvas.style.width = `${width}px`;
      this.canvas.style.height = `${height}px`;
    }
    const context = this.canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    this.label = width < 560 ? 92 : 168;
    this.colours ??= coloursOf(this.scroller);
    paint(context, {
      rows: this.shown,
      top: this.scroller.scrollTop,
      rowHeight: this.rowHeight,
      width,
      height,
      label: this.label,
      view: this.view,
      opened: this.phase.opened_ms,
      closed: this.phase.closed_ms,
      deadline: this.phase.deadline_ms,
      median: this.median,
      now: this.now,
      selected: this.selected,
      slowest: this.slowest,
      colours: this.colours,
    });
    if (!this.painted) performance.mark("gantt-painted");
    this.painted = true;
  }

  // -- pointing -------------------------------------------------------------------------------

  at(event) {
    const box = this.scroller.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const index = y < AXIS ? -1 : Math.floor((y - AXIS + this.scroller.scrollTop) / this.rowHeight);
    const part = (x - this.label) / Math.max(1, box.width - 8 - this.label);
    return { index: index < this.shown.length ? index : -1, part: Math.min(1, Math.max(0, part)) };
  }

  moved(event) {
    if (this.drag && event.pointerType !== "touch") {
      const length = this.view.to - this.view.from;
      const by = ((this.drag.x - event.clientX) / Math.max(1, this.scroller.clientWidth - this.label)) * length;
      if (Math.abs(event.clientX - this.drag.startX) > 4) this.drag.far = true;
      this.drag.x = event.clientX;
      if (this.drag.far) this.pan(by);
      return;
    }
    this.select(this.at(event).index);
  }

  pressed(event) {
    if (event.button !== 0) return;
    this.drag = { x: event.clientX, startX: event.clientX, far: false, chosen: this.selected };
  }

  released(event) {
    const drag = this.drag;
    this.drag = null;
    if (!drag || drag.far) return;
    const { index } = this.at(event);
    if (index < 0) return;
    const known = drag.chosen === index;
    this.select(index);
    // A finger's first touch tells the numbers, as hovering does; the second opens the client.
    if (event.pointerType !== "touch" || known) this.told.open(this.shown[index]);
  }

  wheeled(event) {
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      this.zoom(Math.exp(event.deltaY * 0.004), this.at(event).part);
    } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      const by = event.deltaX || event.deltaY;
      this.pan((by / Math.max(1, this.scroller.clientWidth)) * (this.view.to - this.view.from));
    }
  }

  typed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor((this.scroller.clientHeight - AXIS) / this.rowHeight) - 1);
    const length = this.view.to - this.view.from;
    const acts = {
      ArrowDown: () => this.step(1),
      ArrowUp: () => this.step(-1),
      PageDown: () => this.step(page),
      PageUp: () => this.step(-page),
      Home: () => this.step(-this.shown.length),
      End: () => this.step(this.shown.length),
      ArrowLeft: () => this.pan(-length * 0.1),
      ArrowRight: () => this.pan(length * 0.1),
      Enter: () => this.selected >= 0 && this.told.open(this.shown[this.selected]),
      "+": () => this.zoom(1 / 1.5),
      "=": () => this.zoom(1 / 1.5),
      "-": () => this.zoom(1.5),
      0: () => this.fit(),
    };
    const act = acts[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  step(by) {
    const index = Math.min(this.shown.length - 1, Math.max(0, this.selected + by));
    this.reveal(index);
    this.select(index);
  }

  reveal(index) {
    const [above, below] = [index * this.rowHeight, (index + 1) * this.rowHeight];
    const room = this.scroller.clientHeight - AXIS;
    if (above < this.scroller.scrollTop) this.scroller.scrollTop = above;
    else if (below > this.scroller.scrollTop + room) this.scroller.scrollTop = below - room;
  }

  select(index) {
    if (index === this.selected) return;
    this.selected = index;
    this.told.select(index < 0 ? null : this.shown[index], this);
    this.draw();
  }

  // -- time -----------------------------------------------------------------------------------

  zoom(factor, around = 0.5) {
    const { from, to } = this.view;
    const length = Math.max(5, (to - from) * factor);
    const middle = from + (to - from) * around;
    this.set(middle - length * around, middle + length * (1 - around));
  }

  pan(by) {
    this.set(this.view.from + by, this.view.to + by);
  }

  set(from, to) {
    const most = extentOf(this.phase, this.rows, this.now);
    const length = Math.min(to - from, most.to - most.from);
    const begin = Math.max(most.from, Math.min(from, most.to - length));
    this.view = { from: begin, to: begin + length };
    this.zoomed = true;
    this.draw();
  }

  fit() {
    this.zoomed = false;
    this.view = domainOf(this.phase, this.rows, this.now);
    this.draw();
  }

  close() {
    this.controller.abort();
    this.theme.disconnect();
    this.sizes.disconnect();
    if (this.waits) cancelAnimationFrame(this.waits);
  }
}

/** The row that stands out: as the sentences have it, 1.5 times the median and 0.2 s over it. */
function slowestOf(rows, median) {
  if (median === null || rows.length < 2) return null;
  const least = Math.max(median * 1.5, median + 0.2);
  let found = null;
  for (const each of rows) {
    if (each.outcome !== "accepted" || each.seconds === null || each.seconds <= least) continue;
    if (found === null || each.seconds > found.seconds) found = each;
  }
  return found;
}
