// A run drawn in virtual time: the tree at the left, bars at the right.
// Only the rows that can be seen are in the page, however many there are.

const BEYOND = 6;

/** The calls of a run as a tree beside their bars; keys and picking are here. */
class Timeline {
  constructor(run, onpick, onopen) {
    this.run = run;
    this.onpick = onpick;
    this.onopen = onopen;
    this.closed = new Set();
    this.onlyTrouble = false;
    this.isFolding = true;
    this.hits = new Set();
    this.picked = null;
    this.drawn = new Map();
    this.redraw = beforeNextFrame(() => this.draw());
    this.stretch = new Stretch(run, () => this.drawAgain());
    this.drawing = new Rows(this, this.stretch);
    this.build();
    this.rescale();
    this.list();
    this.watch();
  }

  build() {
    this.tools = this.toolbar();
    this.overview = new Overview(this.run, this.stretch);
    this.axis = new Axis(this.run, this.stretch);
    this.head = this.headRow();
    this.hair = make("div", { class: "hair", "aria-hidden": "true", hidden: true });
    this.space = make("div", { class: "space", role: "rowgroup" });
    this.body = make("div", {
      class: "tree", role: "treegrid", tabindex: "0",
      "aria-label": "Calls in virtual time", "aria-colcount": "3",
    }, this.head, this.axis.back, this.space, this.hair);
    this.element = make("section", { class: "timeline", "aria-label": "Timeline" },
      this.tools, this.overview.element, this.body);
  }

  headRow() {
    const called = make("div", { class: "called", role: "columnheader", text: "Call" });
    const lasted = make("div", { class: "lasted", role: "columnheader", text: "took" });
    const row = { class: "head", role: "row", "aria-rowindex": "1" };
    return make("div", { class: "heads", role: "rowgroup" },
      make("div", row, called, make("div", { class: "axis-cell", role: "columnheader",
        "aria-label": "Virtual time" }, this.axis.element, this.axis.lane), lasted));
  }

  toolbar() {
    const fold = this.toggle("fold", "Fold long waits (f)", "isFolding", () => {
      this.rescale();
    });
    const only = this.toggle("trouble", "Only what went wrong (o)", "onlyTrouble", () => {
      this.list();
    });
    this.switches = { fold, only };
    this.summary = make("p", { class: "summary" });
    const buttons = [
      only,
      iconButton("nest", "Close or open all (a)", () => this.toggleAll()),
      fold,
      iconButton("minus", "Zoom out (-)", () => this.zoom(2)),
      iconButton("plus", "Zoom in (+)", () => this.zoom(0.5)),
      iconButton("fit", "Show all of the time (0)", () => this.stretch.fit()),
    ];
    return make("div", { class: "toolbar" },
      make("h3", { text: "Timeline" }), this.summary,
      make("div", { class: "buttons", role: "toolbar", "aria-label": "Timeline" },
        buttons));
  }

  toggle(picture, label, name, then) {
    const button = iconButton(picture, label, () => {
      this[name] = !this[name];
      button.setAttribute("aria-pressed", String(this[name]));
      then();
    }, { "aria-pressed": String(this[name]) });
    return button;
  }

  watch() {
    this.body.addEventListener("scroll", this.redraw, { passive: true });
    this.body.addEventListener("keydown", (event) => this.onkey(event));
    this.body.addEventListener("click", (event) => this.onclick(event));
    this.body.addEventListener("dblclick", (event) => this.ondouble(event));
    this.gestures = new Gestures(this, this.stretch);
    this.gestures.watch();
    this.resizing = new ResizeObserver(() => this.drawAgain());
    this.resizing.observe(this.body);
  }

  leave() {
    this.resizing.disconnect();
  }

  // What is shown.

  rescale() {
    this.stretch.rescale(this.isFolding);
    this.switches.fold.hidden = !this.stretch.canFold;
  }

  list() {
    this.rows = this.run.rows(this.closed, this.onlyTrouble);
    this.places = new Map(this.rows.map((node, i) => [node.span.id, i]));
    this.body.setAttribute("aria-rowcount", String(this.rows.length + 1));
    this.summary.textContent = this.said();
    this.reserve();
    this.drawAgain();
  }

  /** Make room for all rows, so that a row can be scrolled to before it is drawn. */
  reserve() {
    const height = this.rowHeight();
    this.space.style.height = `${this.rows.length * height}px`;
    return height;
  }

  said() {
    const { record, nodes } = this.run;
    const told = [count(nodes.length + record.left_out, "call")];
    if (this.rows.length < nodes.length) told.push(`${this.rows.length} shown`);
    const length = this.run.last - this.run.moments[0];
    told.push(length ? `${inSeconds(length)} virtual` : "all at one virtual moment");
    const faults = this.run.struck().length;
    if (faults) told.push(count(faults, "fault"));
    if (record.of !== "the test") told.push(record.of);
    if (record.left_out) told.push(`${count(record.left_out, "call")} left out`);
    return told.join(" · ");
  }

  /** Show less or more of the time, around the call that is picked. */
  zoom(factor) {
    const node = this.picked === null ? null : this.run.nodes[this.picked];
    this.stretch.zoom(factor, this.stretch.middleOf(node && node.span));
  }

  rowHeight() {
    return parseFloat(getComputedStyle(this.body).getPropertyValue("--row")) || 26;
  }

  // Drawing.

  drawAgain() {
    this.drawn.clear();
    this.redraw();
  }

  draw() {
    const height = this.reserve();
    const top = this.body.scrollTop;
    const first = clamped(Math.floor(top / height) - BEYOND, 0, this.rows.length);
    const last = Math.min(
      Math.ceil((top + this.body.clientHeight) / height) + BEYOND, this.rows.length);
    const kept = new Map();
    for (let i = first; i < last; i += 1) {
      const row = this.drawn.get(i) || this.drawing.row(this.rows[i], i);
      row.style.top = `${i * height}px`;
      kept.set(i, row);
    }
    this.drawn = kept;
    this.space.replaceChildren(...kept.values());
    this.axis.draw(this.rows.length * height);
    this.overview.draw(this.rows);
    this.tellActive();
  }

  tellActive() {
    const at = this.places.get(this.picked);
    if (at !== undefined && this.drawn.has(at)) {
      this.body.setAttribute("aria-activedescendant", `call-${this.picked}`);
    } else this.body.removeAttribute("aria-activedescendant");
  }

  // Picking.

  pick(id, isQuiet) {
    if (!this.run.nodes[id]) return;
    this.reveal(id);
    const last = this.picked;
    this.picked = id;
    for (const one of [last, id]) {
      const at = this.places.get(one);
      if (at !== undefined) this.drawn.delete(at);
    }
    this.scrollTo(id);
    this.redraw();
    if (!isQuiet) this.onpick(id);
  }

  reveal(id) {
    let isChanged = false;
    for (let node = this.run.nodes[id].above; node; node = node.above) {
      isChanged = this.closed.delete(node.span.id) || isChanged;
    }
    if (this.onlyTrouble && !this.run.nodes[id].isTrouble) {
      this.switches.only.click();
      isChanged = true;
    }
    if (isChanged) this.list();
  }

  scrollTo(id) {
    const height = this.reserve();
    const at = this.places.get(id) * height;
    const room = this.body.clientHeight - this.head.offsetHeight;
    if (room <= 0) return;
    const beyond = at - this.body.scrollTop;
    if (beyond < -room || beyond > 2 * room) this.body.scrollTop = at - room / 2;
    else if (beyond < 0) this.body.scrollTop = at;
    else if (beyond + height > room) this.body.scrollTop = at + height - room;
  }

  open(id, isOpen) {
    const wanted = isOpen === undefined ? this.closed.has(id) : isOpen;
    if (!this.run.nodes[id].children.length) return;
    if (wanted) this.closed.delete(id);
    else this.closed.add(id);
    this.list();
  }

  toggleAll() {
    const parents = this.run.nodes.filter((node) => node.children.length);
    if (this.closed.size) this.closed.clear();
    else parents.forEach((node) => this.closed.add(node.span.id));
    if (this.picked !== null && !this.isShown(this.picked)) {
      let node = this.run.nodes[this.picked];
      while (node.above) node = node.above;
      this.pick(node.span.id);
    }
    this.list();
  }

  isShown(id) {
    for (let node = this.run.nodes[id].above; node; node = node.above) {
      if (this.closed.has(node.span.id)) return false;
    }
    return true;
  }

  /** Show which spans a search has found. */
  highlight(ids) {
    this.hits = new Set(ids);
    this.drawAgain();
  }

  nextHit(by) {
    const ids = this.rows.map((node) => node.span.id).filter((id) => this.hits.has(id));
    const all = ids.length ? ids : [...this.hits];
    if (!all.length) return;
    const at = all.indexOf(this.picked);
    // From a call that was not found, the first step back leads to the last that was.
    const next = at < 0 && by < 0 ? all.length - 1 : at + by;
    this.pick(all[(next + all.length) % all.length]);
  }

  // What people do.

  onclick(event) {
    const row = event.target.closest(".row");
    if (!row || this.gestures.hasMoved) return;
    const { id } = this.rows[Number(row.dataset.index)].span;
    const isTwisty = event.target.closest(".twisty");
    this.pick(id);
    if (isTwisty) this.open(id);
    else if (event.detail < 2) this.onopen(id, false);
  }

  ondouble(event) {
    const row = event.target.closest(".row");
    if (row) this.stretch.zoomTo(this.rows[Number(row.dataset.index)].span);
    else this.stretch.fit();
  }

  onkey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = this.actions()[event.shiftKey && event.key.length > 1
      ? `Shift+${event.key}` : event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  actions() {
    const at = this.places.get(this.picked);
    const go = (index) => {
      if (!this.rows.length) return;
      const row = this.rows[clamped(index, 0, this.rows.length - 1)];
      this.pick(row.span.id);
    };
    const here = at === undefined ? -1 : at;
    const page = Math.max(Math.floor(this.body.clientHeight / this.rowHeight()) - 2, 1);
    return {
      ArrowDown: () => go(here + 1), j: () => go(here + 1),
      ArrowUp: () => go(here - 1), k: () => go(here - 1),
      PageDown: () => go(here + page), PageUp: () => go(here - page),
      Home: () => go(0), End: () => go(this.rows.length - 1),
      ArrowRight: () => this.inward(here), ArrowLeft: () => this.outward(here),
      "Shift+ArrowRight": () => this.stretch.shift(0.2),
      "Shift+ArrowLeft": () => this.stretch.shift(-0.2),
      Enter: () => this.picked !== null && this.onopen(this.picked, true),
      " ": () => this.picked !== null && this.open(this.picked),
      "+": () => this.zoom(0.5), "=": () => this.zoom(0.5), "-": () => this.zoom(2),
      0: () => this.stretch.fit(),
      z: () => this.picked !== null &&
        this.stretch.zoomTo(this.run.nodes[this.picked].span),
      f: () => this.stretch.canFold && this.switches.fold.click(),
      o: () => this.switches.only.click(), a: () => this.toggleAll(),
      n: () => this.nextHit(1), N: () => this.nextHit(-1),
    };
  }

  inward(at) {
    const node = this.rows[at];
    if (!node || !node.children.length) return;
    if (this.closed.has(node.span.id)) this.open(node.span.id, true);
    else if (this.rows[at + 1] && this.rows[at + 1].above === node) {
      this.pick(this.rows[at + 1].span.id);
    }
  }

  outward(at) {
    const node = this.rows[at];
    if (!node) return;
    if (node.children.length && !this.closed.has(node.span.id)) {
      this.open(node.span.id, false);
    } else if (node.above) this.pick(node.above.span.id);
  }
}
