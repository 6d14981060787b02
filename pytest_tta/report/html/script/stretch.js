// The stretch of time that is shown: all of it at first, then what a reader zooms to.

const NEAREST = 1e-7;
// Beside the first and the last moment, so that marks there can be seen whole.
const MARGIN = 0.018;

/** The places between which a scale is shown; calls back whenever they change. */
class Stretch {
  constructor(run, onchange) {
    this.run = run;
    this.onchange = onchange;
  }

  /** Begin with a scale; if part of another was shown, go on with the same moments. */
  rescale(isFolding) {
    const last = this.scale;
    const kept = last && !this.isWhole() ? [last.time(this.from), last.time(this.to)] : null;
    this.scale = new Scale(this.run.moments, isFolding);
    if (kept) this.show(...kept.map((moment) => this.scale.at(moment)));
    else this.fit();
    this.canFold = this.scale.folds.length > 0 || foldable(this.run.moments).length > 0;
  }

  get length() {
    return this.to - this.from;
  }

  show(from, to) {
    const { first, last } = this.whole();
    const size = clamped(to - from, (last - first) * NEAREST, last - first);
    this.from = clamped(from, first, last - size);
    this.to = this.from + size;
    this.onchange();
  }

  whole() {
    const margin = this.scale.length * MARGIN;
    return { first: -margin, last: this.scale.length + margin };
  }

  isWhole() {
    const { first, last } = this.whole();
    return this.to - this.from >= (last - first) * 0.9999;
  }

  fit() {
    const { first, last } = this.whole();
    this.show(first, last);
  }

  /** Show less or more, by a factor; what is at a place stays there. */
  zoom(factor, around) {
    const share = (around - this.from) / this.length;
    this.show(around - share * this.length * factor,
      around + (1 - share) * this.length * factor);
  }

  zoomTo(span) {
    const from = this.scale.at(span.started_at);
    const to = this.scale.at(this.run.endOf(span));
    const margin = (to - from) * 0.08 || this.scale.length / 200;
    this.show(from - margin, to + margin);
  }

  shift(share) {
    const by = this.length * share;
    this.show(this.from + by, this.to + by);
  }

  /** Return the place in the middle of a span; of all that is shown if it is not there. */
  middleOf(span) {
    if (span) {
      const middle = (this.scale.at(span.started_at) +
        this.scale.at(this.run.endOf(span))) / 2;
      if (middle >= this.from && middle <= this.to) return middle;
    }
    return (this.from + this.to) / 2;
  }

  /** Return where a moment is, as a share of what is shown. */
  share(moment) {
    return (this.scale.at(moment) - this.from) / this.length;
  }

  /** Return where a span begins and ends, as shares of what is shown. */
  sharesOf(span) {
    return [this.share(span.started_at), this.share(this.run.endOf(span))];
  }
}
