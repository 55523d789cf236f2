// Charts over the same rounds: one crosshair, one range, one choice of a round for all of them.

export class Group {
  /** `open(round)` is called when a round is chosen; `told(text)` speaks. */
  constructor(open, told) {
    this.open = open;
    this.told = told;
    this.charts = [];
    this.rounds = [];
    this.marks = [];
    this.range = null;
    this.at = null;
    this.resize = new ResizeObserver(() => this.soon());
  }

  add(chart, host) {
    this.charts.push(chart);
    host.append(chart.root);
    this.resize.observe(chart.root);
    return chart;
  }

  /** Show these rounds, in order, and what befell the run. */
  show(rounds, marks) {
    this.rounds = rounds;
    this.marks = placed(marks, rounds);
    this.soon();
  }

  /** The rounds in sight. */
  inSight() {
    if (this.range === null) return this.rounds;
    const [from, to] = this.range;
    return this.rounds.filter((each) => each.round >= from && each.round <= to);
  }

  ends() {
    if (this.range !== null) return this.range;
    if (!this.rounds.length) return [1, 1];
    return [this.rounds[0].round, this.rounds.at(-1).round];
  }

  zoom(range) {
    this.range = range;
    this.zoomed?.(range);
    this.soon();
  }

  /** Set the crosshair to a round; null: none. */
  point(round) {
    if (round === this.at) return;
    this.at = round;
    for (const chart of this.charts) chart.point(round);
  }

  step(by) {
    const seen = this.inSight();
    if (!seen.length) return;
    const index = seen.findIndex((each) => each.round === this.at);
    const next = index < 0 ? seen.length - 1 : Math.max(0, Math.min(seen.length - 1, index + by));
    this.point(seen[next].round);
    this.told(this.charts.map((chart) => chart.words(seen[next])).filter(Boolean).join("; "));
  }

  soon() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      for (const chart of this.charts) chart.draw();
    });
  }

  close() {
    this.resize.disconnect();
    if (this.frame) cancelAnimationFrame(this.frame);
  }
}

/** Each mark with the round, as a fraction, in which it fell; `to`: where it ended. */
function placed(marks, rounds) {
  const known = rounds.filter((each) => each.opened_ms != null);
  const at = (ms) => {
    if (ms == null || !known.length) return null;
    let before = null;
    for (const each of known) {
      if (each.opened_ms > ms) break;
      before = each;
    }
    if (before === null) return known[0].round - 0.5;
    const end = before.closed_ms ?? before.opened_ms + 1000;
    const within = Math.min(1, (ms - before.opened_ms) / Math.max(1, end - before.opened_ms));
    return before.round - 0.5 + within;
  };
  return marks
    .filter((mark) => mark.kind !== "note")
    .map((mark) => ({ ...mark, from: mark.round ?? at(mark.at_ms), to: at(mark.until_ms) }))
    .filter((mark) => mark.from !== null);
}
