// Virtual time beside places: straight, or with long empty waits folded.

const MOST_FOLDS = 40;
const LONG = 20;

/** Return all moments of a run at which something happens, in order, each once. */
function momentsOf(run) {
  const moments = new Set([0]);
  for (const span of run.spans) {
    moments.add(span.started_at);
    if (isNumber(span.ended_at)) moments.add(span.ended_at);
    for (const event of span.events) moments.add(event.at);
  }
  for (const sleep of run.sleeps) {
    moments.add(sleep.at);
    const end = sleep.at + sleep.seconds;
    if (isNumber(end) && run.spans.length === 0) moments.add(end);
  }
  return [...moments].filter(isNumber).sort((a, b) => a - b);
}

/** Return the empty stretches that hide what is short beside them. */
function foldable(moments) {
  const gaps = [];
  for (let i = 1; i < moments.length; i += 1) {
    gaps.push({ from: moments[i - 1], to: moments[i], size: moments[i] - moments[i - 1] });
  }
  if (gaps.length < 2) return [];
  const sizes = gaps.map((gap) => gap.size).sort((a, b) => a - b);
  const usual = sizes[Math.floor((sizes.length - 1) / 4)];
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const long = gaps.filter((gap) => gap.size > LONG * usual && gap.size > total / 400);
  long.sort((a, b) => b.size - a.size);
  return long.slice(0, MOST_FOLDS).sort((a, b) => a.from - b.from);
}

/** Places for moments: `at` gives a place, `time` the moment at a place. */
class Scale {
  constructor(moments, isFolding) {
    this.first = moments[0] || 0;
    this.last = moments[moments.length - 1] || 0;
    const folds = isFolding ? foldable(moments) : [];
    const hidden = folds.reduce((sum, fold) => sum + fold.size, 0);
    const shown = this.last - this.first - hidden;
    const width = shown * Math.min(0.14, 0.9 / (folds.length || 1));
    this.folds = folds.map((fold) => ({ ...fold }));
    this.knots = this.bent(this.folds, width);
    this.length = this.knots[this.knots.length - 1].place || 1;
  }

  bent(folds, width) {
    const knots = [{ moment: this.first, place: 0 }];
    let place = 0;
    let moment = this.first;
    for (const fold of folds) {
      place += fold.from - moment;
      knots.push({ moment: fold.from, place });
      fold.begin = place;
      place += width;
      fold.end = place;
      moment = fold.to;
      knots.push({ moment, place });
    }
    knots.push({ moment: this.last, place: place + this.last - moment });
    return knots;
  }

  at(moment) {
    return this.between(moment, "moment", "place");
  }

  time(place) {
    return this.between(place, "place", "moment");
  }

  between(value, from, to) {
    const knots = this.knots;
    let low = 0;
    let high = knots.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (knots[middle][from] <= value) low = middle;
      else high = middle;
    }
    const [a, b] = [knots[low], knots[high] || knots[low]];
    const size = b[from] - a[from];
    if (!size) return a[to];
    return a[to] + ((value - a[from]) / size) * (b[to] - a[to]);
  }
}

/** Return moments for the labels of an axis between two places, and their distance. */
function ticksOf(scale, from, to, most) {
  const ticks = [];
  for (const stretch of stretchesOf(scale, from, to)) {
    const share = (stretch.end - stretch.begin) / (to - from);
    const room = Math.floor(share * most);
    const size = stretch.to - stretch.from;
    if (size <= 0 && !ticks.length) ticks.push(stretch.from);
    if (room < 1 || size <= 0) continue;
    const distance = step(size / room);
    const first = Math.ceil(stretch.from / distance - 1e-9);
    const last = Math.floor(stretch.to / distance + 1e-9);
    // Counted from zero: to a number beyond 2 ** 53 one cannot be added.
    for (let i = 0; i <= last - first; i += 1) {
      ticks.push(Number(((first + i) * distance).toPrecision(12)));
    }
  }
  return ticks;
}

/** Return what lies between two places and is not folded. */
function stretchesOf(scale, from, to) {
  const stretches = [];
  let begin = from;
  for (const fold of [...scale.folds, { begin: to, end: Infinity }]) {
    const end = Math.min(fold.begin, to);
    if (end > begin) {
      const times = { from: scale.time(begin), to: scale.time(end) };
      stretches.push({ begin, end, ...times });
    }
    begin = Math.max(begin, fold.end);
  }
  return stretches;
}
