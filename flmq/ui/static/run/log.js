// The log of a run: its last lines, earlier ones, and those with a text.

import { el } from "../gantt/dom.js";
import { clock, number } from "../gantt/words.js";

const AT_ONCE = 200;

export class Log {
  constructor(api, source) {
    Object.assign(this, { api, source, lines: [], search: "", seen: false });
    this.list = el("ol", { class: "lines", tabindex: 0, "aria-label": "Log lines, the last one first" });
    this.said = el("p", { class: "hint", role: "status" });
    this.field = el("input", { type: "search", placeholder: "search the log", "aria-label": "Search the log" });
    this.earlier = el("button", { type: "button", hidden: true, on: { click: () => this.load(true) } }, "Earlier lines");
    this.field.addEventListener("input", () => {
      clearTimeout(this.soon);
      this.soon = setTimeout(() => {
        this.search = this.field.value.trim();
        this.load();
      }, 200);
    });
    this.root = el("div", {}, this.field, this.said, this.list, this.earlier);
  }

  /** Read the last lines, or those before the ones shown. */
  async load(earlier = false) {
    this.seen = true;
    const mine = (this.asked = (this.asked ?? 0) + 1);
    const query = new URLSearchParams({ limit: AT_ONCE });
    if (this.search) query.set("search", this.search);
    if (earlier && this.lines.length) query.set("before", this.lines[0].id);
    try {
      const found = await this.source.getJSON(query.size === 1 ? this.api : `${this.api}?${query}`);
      if (mine !== this.asked || this.closed) return;
      this.lines = earlier ? [...found.lines, ...this.lines] : found.lines;
      this.earlier.hidden = !found.earlier;
      this.show(found.left_out?.log ?? 0);
    } catch (error) {
      this.said.textContent = error.message;
    }
  }

  /** Read again what may be new, if it is looked at. */
  follow() {
    if (this.seen && this.lines.length <= AT_ONCE) this.load();
  }

  show(leftOut) {
    const none = this.search ? `No line has “${this.search}”.` : "No lines are kept: the run began with an older flmq, or has no folder of its own.";
    const some = leftOut ? `${number(leftOut)} earlier lines are left out.` : "";
    this.said.textContent = this.lines.length ? some : none;
    const at = this.list.scrollTop;
    this.list.replaceChildren(...this.lines.toReversed().map((each) => el("li", { class: each.level }, el("time", { datetime: new Date(each.at_ms).toISOString() }, clock(each.at_ms)), el("span", {}, each.level), el("span", {}, each.text))));
    this.list.scrollTop = at;
  }

  close() {
    this.closed = true;
    clearTimeout(this.soon);
  }
}
