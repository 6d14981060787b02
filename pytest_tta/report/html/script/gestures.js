// What a pointer does in a timeline: it drags, it turns its wheel, it hovers.

/** Moves what a timeline shows, as a pointer asks for it. */
class Gestures {
  constructor(timeline, stretch) {
    this.timeline = timeline;
    this.stretch = stretch;
    this.body = timeline.body;
    this.space = timeline.space;
    this.hair = timeline.hair;
    this.axis = timeline.axis.element;
    this.overview = timeline.overview.element;
    this.hasMoved = false;
  }

  watch() {
    this.body.addEventListener("wheel", (event) => this.onwheel(event), { passive: false });
    this.body.addEventListener("pointermove", (event) => this.onhover(event));
    this.body.addEventListener("pointerleave", () => { this.hair.hidden = true; });
    this.overview.addEventListener("wheel", (event) => this.onwheel(event, true),
      { passive: false });
    this.dragged(this.space, (drag) => this.pan(drag));
    this.dragged(this.axis, (drag) => this.mark(drag, this.stretch.from, this.stretch.to));
    this.dragged(this.overview, (drag) => this.mark(drag, 0, this.stretch.scale.length));
  }

  onwheel(event, isAlways) {
    const { stretch } = this;
    const isWide = Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey;
    const isZoom = event.ctrlKey || event.metaKey || event.altKey || isAlways ||
      event.target.closest(".axis-cell");
    if (isZoom && !isWide) {
      const [area, from, to] = isAlways
        ? [this.overview, 0, stretch.scale.length] : [this.axis, stretch.from, stretch.to];
      const around = placeAt(event.clientX, area, from, to);
      stretch.zoom(Math.exp(clamped(event.deltaY, -200, 200) / 250), around);
    } else if (isWide && !stretch.isWhole()) {
      stretch.shift((event.deltaX || event.deltaY) / (this.axis.clientWidth || 600));
    } else return;
    event.preventDefault();
  }

  onhover(event) {
    const { left, right, width } = this.axis.getBoundingClientRect();
    this.hair.hidden = event.clientX < left || event.clientX > right;
    if (this.hair.hidden) return;
    const { from, length, scale } = this.stretch;
    const share = (event.clientX - left) / width;
    const moment = Math.max(scale.time(from + share * length), scale.first);
    const body = this.body.getBoundingClientRect();
    this.hair.style.left = `${event.clientX - body.left}px`;
    this.hair.style.height = `${this.space.offsetHeight}px`;
    this.hair.dataset.moment = asMoment(moment, length / width);
    this.hair.classList.toggle("at-end", share > 0.85);
  }

  /** Call back while something is dragged sideways, with its beginning and place. */
  dragged(element, callback) {
    element.addEventListener("pointerdown", (event) => {
      this.hasMoved = false;
      if (event.button) return;
      const { from, to } = this.stretch;
      const drag = { element, begin: event.clientX, from, to };
      const move = (moved) => {
        if (Math.abs(moved.clientX - drag.begin) > 4) this.hasMoved = true;
        if (this.hasMoved) callback({ ...drag, at: moved.clientX });
      };
      const end = (ended) => {
        for (const [name, listener] of listeners) {
          window.removeEventListener(name, listener);
        }
        if (ended.type === "pointercancel") this.stretch.onchange();
        else if (this.hasMoved) callback({ ...drag, at: ended.clientX, isOver: true });
      };
      // A finger that begins to scroll the page is taken away, and never lifted.
      const listeners = [["pointermove", move], ["pointerup", end], ["pointercancel", end]];
      for (const [name, listener] of listeners) window.addEventListener(name, listener);
    });
  }

  pan({ begin, at, from, to }) {
    const share = (begin - at) / (this.axis.clientWidth || 600);
    if (!this.stretch.isWhole()) {
      this.stretch.show(from + share * (to - from), to + share * (to - from));
    }
  }

  mark({ element, begin, at, isOver }, from, to) {
    const area = element === this.overview ? this.overview : this.axis;
    const a = placeAt(Math.min(begin, at), area, from, to);
    const b = placeAt(Math.max(begin, at), area, from, to);
    if (isOver) this.stretch.show(a, b);
    else if (area === this.overview) this.timeline.overview.mark(a, b);
  }
}

/** Return which place a pointer is at, in an element from one place to another. */
function placeAt(clientX, element, from, to) {
  const { left, width } = element.getBoundingClientRect();
  return from + clamped((clientX - left) / (width || 1), 0, 1) * (to - from);
}
