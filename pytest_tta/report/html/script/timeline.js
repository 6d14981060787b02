// A run drawn in virtual time: the tree at the left, bars at the right.
// Only the rows that can be seen are in the page, however many there are.

const BEYOND = 6;
const MOST_MARKS = 60;
const MOST_WAITS = 300;
const NEAREST = 1e-7;
// Beside the first and the last moment, so that marks there can be seen whole.
const MARGIN = 0.018;

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
    this.build();
    this.redraw = beforeNextFrame(() => this.draw());
    this.rescale();
    this.list();
    this.watch();
  }

  build() {
    this.tools = this.toolbar();
    this.canvas = make("canvas", { class: "overview-picture" });
    this.frame = make("div", { class: "overview-frame" });
    this.overview = make("div", { class: "overview", "aria-hidden": "true" },
      this.canvas, this.frame);
    this.axis = make("div", { class: "axis" });
    this.head = this.headRow();
    this.back = make("div", { class: "backdrop", "aria-hidden": "true" });
    this.hair = make("div", { class: "hair", "aria-hidden": "true", hidden: true });
    this.space = make("div", { class: "space", role: "rowgroup" });
    this.body = make("div", {
      class: "tree", role: "treegrid", tabindex: "0",
      "aria-label": "Calls in virtual time", "aria-colcount": "3",
    }, this.head, this.back, this.space, this.hair);
    this.element = make("section", { class: "timeline", "aria-label": "Timeline" },
      this.tools, this.overview, this.body);
  }

  headRow() {
    const called = make("div", { class: "called", role: "columnheader", text: "Call" });
    const lasted = make("div", { class: "lasted", role: "columnheader", text: "took" });
    this.lane = make("div", { class: "lane" });
    const row = { class: "head", role: "row", "aria-rowindex": "1" };
    const group = make("div", { class: "heads", role: "rowgroup" },
      make("div", row, called, make("div", { class: "axis-cell", role: "columnheader",
        "aria-label": "Virtual time" }, this.axis, this.lane), lasted));
    return group;
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
      iconButton("fit", "Show all of the time (0)", () => this.fit()),
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
    this.body.addEventListener("wheel", (event) => this.onwheel(event), { passive: false });
    this.body.addEventListener("pointermove", (event) => this.onhover(event));
    this.body.addEventListener("pointerleave", () => { this.hair.hidden = true; });
    this.overview.addEventListener("wheel", (event) => this.onwheel(event, true),
      { passive: false });
    this.dragged(this.space, (drag) => this.pan(drag));
    this.dragged(this.axis, (drag) => this.mark(drag, this.from, this.to));
    this.dragged(this.overview, (drag) => this.mark(drag, 0, this.scale.length));
    this.resizing = new ResizeObserver(() => {
      this.drawn.clear();
      this.redraw();
    });
    this.resizing.observe(this.body);
  }

  leave() {
    this.resizing.disconnect();
  }

  // What is shown.

  rescale() {
    const last = this.scale;
    const kept = last && !this.isWhole() ? [last.time(this.from), last.time(this.to)] : null;
    this.scale = new Scale(this.run.moments, this.isFolding);
    if (kept) this.show(...kept.map((moment) => this.scale.at(moment)));
    else this.fit();
    this.canFold = this.scale.folds.length > 0 || foldable(this.run.moments).length > 0;
    this.switches.fold.hidden = !this.canFold;
  }

  list() {
    this.rows = this.run.rows(this.closed, this.onlyTrouble);
    this.places = new Map(this.rows.map((node, i) => [node.span.id, i]));
    this.body.setAttribute("aria-rowcount", String(this.rows.length + 1));
    this.summary.textContent = this.said();
    this.drawn.clear();
    this.reserve();
    this.redraw();
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

  show(from, to) {
    const { first, last } = this.whole();
    const size = clamped(to - from, (last - first) * NEAREST, last - first);
    this.from = clamped(from, first, last - size);
    this.to = this.from + size;
    this.drawn.clear();
    this.redraw();
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

  zoom(factor, around) {
    const size = this.to - this.from;
    const center = around === undefined ? this.center() : around;
    const share = (center - this.from) / size;
    this.show(center - share * size * factor, center + (1 - share) * size * factor);
  }

  center() {
    const node = this.picked === null ? null : this.run.nodes[this.picked];
    if (node) {
      const { span } = node;
      const middle = (this.scale.at(span.started_at) +
        this.scale.at(this.run.endOf(span))) / 2;
      if (middle >= this.from && middle <= this.to) return middle;
    }
    return (this.from + this.to) / 2;
  }

  zoomTo(span) {
    const from = this.scale.at(span.started_at);
    const to = this.scale.at(this.run.endOf(span));
    const margin = (to - from) * 0.08 || this.scale.length / 200;
    this.show(from - margin, to + margin);
  }

  shift(share) {
    const by = (this.to - this.from) * share;
    this.show(this.from + by, this.to + by);
  }

  // Where things are.

  share(moment) {
    return (this.scale.at(moment) - this.from) / (this.to - this.from);
  }

  placeAt(clientX, element, from, to) {
    const { left, width } = element.getBoundingClientRect();
    return from + clamped((clientX - left) / (width || 1), 0, 1) * (to - from);
  }

  rowHeight() {
    return parseFloat(getComputedStyle(this.body).getPropertyValue("--row")) || 26;
  }

  // Drawing.

  draw() {
    const height = this.reserve();
    const top = this.body.scrollTop;
    const first = clamped(Math.floor(top / height) - BEYOND, 0, this.rows.length);
    const last = Math.min(
      Math.ceil((top + this.body.clientHeight) / height) + BEYOND, this.rows.length);
    const kept = new Map();
    for (let i = first; i < last; i += 1) {
      const row = this.drawn.get(i) || this.row(this.rows[i], i);
      row.style.top = `${i * height}px`;
      kept.set(i, row);
    }
    this.drawn = kept;
    this.space.replaceChildren(...kept.values());
    this.drawAxis();
    this.drawOverview();
    this.tellActive();
  }

  tellActive() {
    const at = this.places.get(this.picked);
    if (at !== undefined && this.drawn.has(at)) {
      this.body.setAttribute("aria-activedescendant", `call-${this.picked}`);
    } else this.body.removeAttribute("aria-activedescendant");
  }

  row(node, index) {
    const { span } = node;
    const siblings = node.above ? node.above.children : this.run.roots;
    const row = make("div", {
      id: `call-${span.id}`, class: this.classes(node), role: "row",
      "aria-level": node.depth + 1, "aria-rowindex": index + 2,
      "aria-setsize": siblings.length, "aria-posinset": siblings.indexOf(node) + 1,
      "aria-selected": String(span.id === this.picked),
      "aria-expanded": node.children.length ? String(!this.closed.has(span.id)) : null,
    }, this.calledCell(node), this.barCell(node), this.lastedCell(span));
    row.dataset.index = index;
    return row;
  }

  classes(node) {
    const names = ["row", `is-${node.span.status}`];
    if (this.hits.has(node.span.id)) names.push("hit");
    if (this.hits.size && !this.hits.has(node.span.id)) names.push("miss");
    return names.join(" ");
  }

  calledCell(node) {
    const { span } = node;
    const room = clamped(84 / (this.run.deepest || 1), 1, 15);
    const indent = make("span", { class: "indent" });
    indent.style.width = `${node.depth * room}px`;
    indent.style.setProperty("--indent", `${room}px`);
    const twisty = make("span", { class: node.children.length ? "twisty" : "twisty leaf" },
      node.children.length ? icon("chevron") : null);
    const number = span.execution > 1
      ? make("span", { class: "number", text: `@${span.execution}` }) : null;
    return make("div", { class: "called", role: "gridcell", title: span.path },
      indent, twisty, make("bdi", { class: "label", text: span.label }), number,
      make("span", { class: "kind", text: kindOf(span) }), this.signs(span));
  }

  signs(span) {
    const signs = [];
    if (span.messages.length) signs.push(["speech", "gone", "messages"]);
    if (span.fault) signs.push(["bolt", "fault", "injected fault"]);
    const { icon: picture, word } = STATUS[span.status];
    if (span.status !== "ok") signs.push([picture, span.status, word]);
    return make("span", { class: "signs" }, signs.map(([name, tone, title]) =>
      make("span", { class: `sign tone-${tone}`, title }, icon(name))));
  }

  barCell(node) {
    const { span } = node;
    const [from, to] = [this.share(span.started_at), this.share(this.run.endOf(span))];
    const cell = make("div", {
      class: "when", role: "gridcell", "aria-label": this.spoken(span),
    });
    if (to >= 0 && from <= 1) {
      cell.append(this.bar(node, from, to), ...this.waits(span), ...this.marks(span));
    }
    if (speaks(node)) cell.append(this.caption(span, from, to));
    return cell;
  }

  bar(node, from, to) {
    const { span } = node;
    const names = ["bar", `is-${span.status}`];
    if (node.children.length) names.push("outer");
    if (span.started_at === this.run.endOf(span)) names.push("instant");
    if (from < 0) names.push("cut-begin");
    if (to > 1) names.push("cut-end");
    const bar = make("div", { class: names.join(" ") });
    bar.style.left = `${clamped(from, 0, 1) * 100}%`;
    bar.style.width = `${(clamped(to, 0, 1) - clamped(from, 0, 1)) * 100}%`;
    return bar;
  }

  caption(span, from, to) {
    const isStruck = span.fault && span.status === "ok";
    const caption = make("span", {
      class: `caption tone-${isStruck ? "fault" : span.status}`,
      text: isStruck ? "fault" : captionOf(span),
    });
    const [left, right] = [clamped(from, 0, 1), clamped(to, 0, 1)];
    if (right <= 0.66) caption.style.left = `calc(${right * 100}% + 11px)`;
    else if (left >= 0.34) caption.style.right = `calc(${(1 - left) * 100}% + 11px)`;
    else {
      caption.classList.add("within");
      caption.style.right = `calc(${(1 - right) * 100}% + 6px)`;
    }
    return caption;
  }

  waits(span) {
    return waitsOf(span).map(([at, until]) => {
      const [from, to] = [this.share(at), this.share(until)];
      if (to < 0 || from > 1) return null;
      const wait = make("div", { class: "wait", title: `waits ${inSeconds(until - at)}` });
      wait.style.left = `${clamped(from, 0, 1) * 100}%`;
      wait.style.width = `${(clamped(to, 0, 1) - clamped(from, 0, 1)) * 100}%`;
      return wait;
    }).filter(Boolean);
  }

  marks(span) {
    const marks = [];
    const width = this.axis.clientWidth || 600;
    let last = -Infinity;
    for (const event of span.events) {
      const share = this.share(event.at);
      if (share < 0 || share > 1 || marks.length >= MOST_MARKS) continue;
      if (event.name === "retry.attempt" || (share - last) * width < 11) continue;
      last = share;
      const { icon: name, tone } = markOf(event);
      const title = `${asMoment(event.at, 0.001)}: ${event.name}`;
      const mark = make("span", { class: `mark tone-${tone}`, title }, icon(name));
      mark.style.left = `${share * 100}%`;
      marks.push(mark);
    }
    return marks;
  }

  lastedCell(span) {
    const lasted = this.run.lasted(span);
    return make("div", {
      class: "lasted", role: "gridcell",
      text: lasted === null ? "…" : inSeconds(lasted),
    });
  }

  spoken(span) {
    const lasted = this.run.lasted(span);
    const took = lasted === null ? "did not end" : `took ${inSeconds(lasted)}`;
    const told = [`from ${inSeconds(span.started_at)}`, took, outcomeOf(span)];
    if (span.fault) told.push(`injected: ${span.fault}`);
    if (span.events.length) told.push(span.events.map((one) => one.name).join(", "));
    return told.join("; ");
  }

  drawAxis() {
    const width = this.axis.clientWidth || 600;
    const distance = (this.to - this.from) / (width / 90);
    const parts = [];
    const lines = [];
    for (const fold of this.scale.folds) this.drawFold(fold, parts, lines, width);
    let free = -Infinity;
    for (const moment of ticksOf(this.scale, this.from, this.to, width / 84)) {
      const left = this.share(moment) * width;
      if (left < -1 || left > width + 1 || moment < this.scale.first) continue;
      lines.push(this.line(left / width));
      if (left < free || left > width - 30 || this.isFolded(moment)) continue;
      const text = asMoment(moment, distance);
      parts.push(placed(make("span", { class: "tick", text }), left / width));
      free = left + 12 + text.length * 6.5;
    }
    this.axis.replaceChildren(...parts);
    this.back.replaceChildren(...lines);
    this.back.style.height = `${Math.max(this.rows.length * this.rowHeight(), 0)}px`;
    this.drawLane(width);
  }

  isFolded(moment) {
    const place = this.scale.at(moment);
    return this.scale.folds.some((one) => place > one.begin && place < one.end);
  }

  line(share) {
    return placed(make("div", { class: "line" }), share);
  }

  drawFold(fold, parts, lines, width) {
    const size = this.to - this.from;
    const begin = (fold.begin - this.from) / size;
    const end = (fold.end - this.from) / size;
    if (end < 0 || begin > 1) return;
    for (const [list, name] of [[lines, "folded"], [parts, "folded head-fold"]]) {
      const band = placed(make("div", { class: name }), clamped(begin, 0, 1));
      band.style.width = `${(clamped(end, 0, 1) - clamped(begin, 0, 1)) * 100}%`;
      list.push(band);
    }
    const band = parts[parts.length - 1];
    band.title = `${inSeconds(fold.size)} in which nothing begins or ends`;
    const text = inSeconds(fold.size);
    if ((end - begin) * width > text.length * 6 + 8) band.append(make("span", { text }));
  }

  drawLane(width) {
    const parts = [];
    let last = -Infinity;
    for (const sleep of this.run.record.sleeps) {
      const end = Number.isFinite(sleep.seconds) ? sleep.at + sleep.seconds : this.run.last;
      const [from, to] = [this.share(sleep.at), this.share(Math.min(end, this.run.last))];
      if (to < 0 || from > 1 || to * width - last < 2) continue;
      if (parts.length >= MOST_WAITS) break;
      last = to * width;
      const part = placed(make("div", { class: "slept" }), clamped(from, 0, 1));
      part.style.width = `${(clamped(to, 0, 1) - clamped(from, 0, 1)) * 100}%`;
      part.title = `${sleep.where} waits ${inSeconds(sleep.seconds)}`;
      parts.push(part);
    }
    this.lane.replaceChildren(...parts);
  }

  drawOverview() {
    const { clientWidth: width, clientHeight: height } = this.overview;
    const length = this.scale.length;
    this.frame.style.left = `${(Math.max(this.from, 0) / length) * 100}%`;
    this.frame.style.width = `${((this.to - Math.max(this.from, 0)) / length) * 100}%`;
    this.frame.classList.toggle("whole", this.isWhole());
    const key = [width, height, this.isFolding, this.rows.length,
      document.documentElement.dataset.theme].join();
    if (this.overviewKey === key || !width) return;
    this.overviewKey = key;
    this.paint(width, height);
  }

  paint(width, height) {
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    const pen = this.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const style = getComputedStyle(this.body);
    const most = Math.max(this.rows.length, 8);
    const thick = clamped((height - 6) / most, 1, 4);
    for (const isBad of [false, true]) {
      this.rows.forEach((node, i) => {
        const { span } = node;
        if ((span.status !== "ok") !== isBad) return;
        const left = (this.scale.at(span.started_at) / this.scale.length) * width;
        const right = (this.scale.at(this.run.endOf(span)) / this.scale.length) * width;
        pen.fillStyle = style.getPropertyValue(`--bar-${span.status}`);
        pen.globalAlpha = node.children.length && !isBad ? 0.35 : 0.9;
        const high = isBad ? Math.max(thick, 2.5) : thick * 0.8;
        pen.fillRect(left, 3 + (i / most) * (height - 6), Math.max(right - left, 2), high);
      });
    }
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
    this.drawn.clear();
    this.redraw();
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
    if (!row || this.hasMoved) return;
    const { id } = this.rows[Number(row.dataset.index)].span;
    const isTwisty = event.target.closest(".twisty");
    this.pick(id);
    if (isTwisty) this.open(id);
    else if (event.detail < 2) this.onopen(id, false);
  }

  ondouble(event) {
    const row = event.target.closest(".row");
    if (row) this.zoomTo(this.rows[Number(row.dataset.index)].span);
    else this.fit();
  }

  onwheel(event, isAlways) {
    const isWide = Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey;
    const isZoom = event.ctrlKey || event.metaKey || event.altKey || isAlways ||
      event.target.closest(".axis-cell");
    if (isZoom && !isWide) {
      const [area, from, to] = isAlways
        ? [this.overview, 0, this.scale.length] : [this.axis, this.from, this.to];
      const around = this.placeAt(event.clientX, area, from, to);
      this.zoom(Math.exp(clamped(event.deltaY, -200, 200) / 250), around);
    } else if (isWide && !this.isWhole()) {
      this.shift((event.deltaX || event.deltaY) / (this.axis.clientWidth || 600));
    } else return;
    event.preventDefault();
  }

  onhover(event) {
    const { left, right, width } = this.axis.getBoundingClientRect();
    this.hair.hidden = event.clientX < left || event.clientX > right;
    if (this.hair.hidden) return;
    const share = (event.clientX - left) / width;
    const moment = Math.max(
      this.scale.time(this.from + share * (this.to - this.from)), this.scale.first);
    const body = this.body.getBoundingClientRect();
    this.hair.style.left = `${event.clientX - body.left}px`;
    this.hair.style.height = `${this.space.offsetHeight}px`;
    this.hair.dataset.moment = asMoment(moment, (this.to - this.from) / width);
    this.hair.classList.toggle("at-end", share > 0.85);
  }

  /** Call back while something is dragged sideways, with its beginning and place. */
  dragged(element, callback) {
    element.addEventListener("pointerdown", (event) => {
      this.hasMoved = false;
      if (event.button) return;
      const drag = { element, begin: event.clientX, from: this.from, to: this.to };
      const move = (moved) => {
        if (Math.abs(moved.clientX - drag.begin) > 4) this.hasMoved = true;
        if (this.hasMoved) callback({ ...drag, at: moved.clientX });
      };
      const end = (ended) => {
        for (const [name, listener] of listeners) {
          window.removeEventListener(name, listener);
        }
        if (ended.type === "pointercancel") this.redraw();
        else if (this.hasMoved) callback({ ...drag, at: ended.clientX, isOver: true });
      };
      // A finger that begins to scroll the page is taken away, and never lifted.
      const listeners = [["pointermove", move], ["pointerup", end], ["pointercancel", end]];
      for (const [name, listener] of listeners) window.addEventListener(name, listener);
    });
  }

  pan({ begin, at, from, to }) {
    const share = (begin - at) / (this.axis.clientWidth || 600);
    if (!this.isWhole()) {
      this.show(from + share * (to - from), to + share * (to - from));
    }
  }

  mark({ element, begin, at, isOver }, from, to) {
    const area = element === this.overview ? this.overview : this.axis;
    const a = this.placeAt(Math.min(begin, at), area, from, to);
    const b = this.placeAt(Math.max(begin, at), area, from, to);
    if (isOver) this.show(a, b);
    else if (element === this.overview) {
      this.frame.style.left = `${(a / this.scale.length) * 100}%`;
      this.frame.style.width = `${((b - a) / this.scale.length) * 100}%`;
    }
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
      "Shift+ArrowRight": () => this.shift(0.2), "Shift+ArrowLeft": () => this.shift(-0.2),
      Enter: () => this.picked !== null && this.onopen(this.picked, true),
      " ": () => this.picked !== null && this.open(this.picked),
      "+": () => this.zoom(0.5), "=": () => this.zoom(0.5), "-": () => this.zoom(2),
      0: () => this.fit(), z: () => this.zoomTo(this.run.nodes[this.picked].span),
      f: () => this.canFold && this.switches.fold.click(),
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

/** Return whether a bar says what came of it: a parent does not repeat its child. */
function speaks({ span, children }) {
  if (span.status === "ok") return Boolean(span.fault);
  const words = captionOf(span);
  return !children.some((child) => captionOf(child.span) === words);
}

function captionOf(span) {
  return span.status === "failed" && span.error ? span.error.type : STATUS[span.status].word;
}

function placed(element, share) {
  element.style.left = `${share * 100}%`;
  return element;
}

/** Return the class of a primitive in few words, if its name does not say it. */
function kindOf(span) {
  const short = span.kind.replace(/Primitive$/, "");
  const name = span.name.toLowerCase().replace(/[^a-z]/g, "");
  return short.toLowerCase() === name || short === "Step" || short === "Lambda" ? "" : short;
}
