// Scales, ticks and thinning of what is drawn over rounds. Pure.

/** Round values for an axis from low to high, some `count` of them. */
export function ticks(low, high, count) {
  if (!(high > low)) return [low];
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
  const first = Math.ceil(low / step - 1e-9) * step;
  const found = [];
  // Counted, as a step may be too small to change a number that it is added to.
  const last = Math.floor((high - first) / step + 1e-9);
  for (let nth = 0; nth <= last; nth += 1) found.push(Number((first + nth * step).toPrecision(12)));
  return found;
}

/** The ends of an axis for these values; a little air, and 0 where it is near. */
export function ends(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low === Infinity) return null;
  if (low > 0 && low < high * 0.5) low = 0;
  // What differs by rounding alone is a flat line.
  if (high - low <= 1e-9 * Math.max(Math.abs(low), Math.abs(high))) return [low - (Math.abs(low) || 1) * 0.5, high + (Math.abs(high) || 1) * 0.5];
  const air = (high - low) * 0.06;
  return [low === 0 ? 0 : low - air, high + air];
}

/**
 * The points of a line, thinned to some `most`: of each stretch its first, least, greatest and last,
 * in order, so that no peak is lost.
 */
export function thinned(points, most) {
  if (points.length <= most) return points;
  const size = Math.ceil((points.length * 4) / most);
  const kept = [];
  for (let at = 0; at < points.length; at += size) {
    const stretch = points.slice(at, at + size);
    let [least, greatest] = [0, 0];
    stretch.forEach(([, value], place) => {
      if (value < stretch[least][1]) least = place;
      if (value > stretch[greatest][1]) greatest = place;
    });
    const places = new Set([0, least, greatest, stretch.length - 1]);
    kept.push(...[...places].sort((a, b) => a - b).map((place) => stretch[place]));
  }
  return kept;
}

/**
 * Bars, at most `most`: where there are more rounds, a bar stands for several, and shows the one of
 * them in which `weight` is greatest, so that nothing bad is averaged away.
 */
export function bucketed(rounds, most, weight) {
  if (rounds.length <= most) return rounds.map((shown) => ({ shown, from: shown.round, to: shown.round }));
  const size = Math.ceil(rounds.length / most);
  const bars = [];
  for (let at = 0; at < rounds.length; at += size) {
    const stretch = rounds.slice(at, at + size);
    const shown = stretch.reduce((worst, each) => (weight(each) > weight(worst) ? each : worst));
    bars.push({ shown, from: stretch[0].round, to: stretch.at(-1).round });
  }
  return bars;
}
