// Above the rows of a timeline: the axis with its labels and folds, and an overview.

const MOST_WAITS = 300;

/** Virtual time as labels and lines, with the folds and what was waited for. */
class Axis {
  constructor(run, stretch) {
    this.run = run;
    this.stretch = stretch;
    this.element = make("div", { class: "axis" });
    this.lane = make("div", { class: "lane" });
    this.back = make("div", { class: "backdrop", "aria-hidden": "true" });
  }

  get width() {
    return this.element.clientWidth || 600;
  }

  /** Draw it above so many pixels of rows. */
  draw(height) {
    const { width } = this;
    const { from, to, scale } = this.stretch;
    const distance = (to - from) / (width / 90);
    const parts = [];
    const lines = [];
    for (const fold of scale.folds) this.drawFold(fold, parts, lines, width);
    let free = -Infinity;
    for (const moment of ticksOf(scale, from, to, width / 84)) {
      const left = this.stretch.share(moment) * width;
      if (left < -1 || left > width + 1 || moment < scale.first) continue;
      lines.push(placed(make("div", { class: "line" }), left / width));
      if (left < free || left > width - 30 || this.isFolded(moment)) continue;
      const text = asMoment(moment, distance);
      parts.push(placed(make("span", { class: "tick", text }), left / width));
      free = left + 12 + text.length * 6.5;
    }
    this.element.replaceChildren(...parts);
    this.back.replaceChildren(...lines);
    this.back.style.height = `${height}px`;
    this.drawLane(width);
  }

  isFolded(moment) {
    const { scale } = this.stretch;
    const place = scale.at(moment);
    return scale.folds.some((one) => place > one.begin && place < one.end);
  }

  drawFold(fold, parts, lines, width) {
    const { from, length } = this.stretch;
    const [begin, end] = [(fold.begin - from) / length, (fold.end - from) / length];
    if (end < 0 || begin > 1) return;
    for (const [list, name] of [[lines, "folded"], [parts, "folded head-fold"]]) {
      list.push(spread(make("div", { class: name }), begin, end));
    }
    const band = parts[parts.length - 1];
    band.title = `${inSeconds(fold.size)} in which nothing begins or ends`;
    const text = inSeconds(fold.size);
    if ((end - begin) * width > text.length * 6 + 8) band.append(make("span", { text }));
  }

  drawLane(width) {
    const parts = [];
    const { last, record } = this.run;
    let drawn = -Infinity;
    for (const sleep of record.sleeps) {
      const end = Number.isFinite(sleep.seconds) ? sleep.at + sleep.seconds : last;
      const [from, to] =
        [sleep.at, Math.min(end, last)].map((one) => this.stretch.share(one));
      if (to < 0 || from > 1 || to * width - drawn < 2) continue;
      if (parts.length >= MOST_WAITS) break;
      drawn = to * width;
      const part = spread(make("div", { class: "slept" }), from, to);
      part.title = `${sleep.where} waits ${inSeconds(sleep.seconds)}`;
      parts.push(part);
    }
    this.lane.replaceChildren(...parts);
  }
}

/** All calls of a run, small, with a frame around what is shown of them. */
class Overview {
  constructor(run, stretch) {
    this.run = run;
    this.stretch = stretch;
    this.canvas = make("canvas", { class: "overview-picture" });
    this.frame = make("div", { class: "overview-frame" });
    this.element = make("div", { class: "overview", "aria-hidden": "true" },
      this.canvas, this.frame);
  }

  /** Draw rows, unless they are drawn already, and the frame around what is shown. */
  draw(rows) {
    const { clientWidth: width, clientHeight: height } = this.element;
    const { from, to, scale } = this.stretch;
    this.mark(Math.max(from, 0), to);
    this.frame.classList.toggle("whole", this.stretch.isWhole());
    const key = [width, height, scale.folds.length, rows.length,
      document.documentElement.dataset.theme].join();
    if (this.key === key || !width) return;
    this.key = key;
    this.paint(rows, width, height);
  }

  /** Put the frame around what lies between two places. */
  mark(from, to) {
    const { length } = this.stretch.scale;
    this.frame.style.left = `${(from / length) * 100}%`;
    this.frame.style.width = `${((to - from) / length) * 100}%`;
  }

  paint(rows, width, height) {
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    const pen = this.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const { scale } = this.stretch;
    const style = getComputedStyle(this.element);
    const most = Math.max(rows.length, 8);
    const thick = clamped((height - 6) / most, 1, 4);
    for (const isBad of [false, true]) {
      rows.forEach((node, i) => {
        const { span } = node;
        if ((span.status !== "ok") !== isBad) return;
        const left = (scale.at(span.started_at) / scale.length) * width;
        const right = (scale.at(this.run.endOf(span)) / scale.length) * width;
        pen.fillStyle = style.getPropertyValue(`--bar-${span.status}`);
        pen.globalAlpha = node.children.length && !isBad ? 0.35 : 0.9;
        const high = isBad ? Math.max(thick, 2.5) : thick * 0.8;
        pen.fillRect(left, 3 + (i / most) * (height - 6), Math.max(right - left, 2), high);
      });
    }
  }
}

function placed(element, share) {
  element.style.left = `${share * 100}%`;
  return element;
}

/** Put an element between two shares of what is shown, as far as they are shown. */
function spread(element, from, to) {
  const [left, right] = [clamped(from, 0, 1), clamped(to, 0, 1)];
  element.style.width = `${(right - left) * 100}%`;
  return placed(element, left);
}
