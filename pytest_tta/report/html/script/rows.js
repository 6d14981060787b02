// The rows of a timeline: how a call is called, its bar, and how long it took.

const MOST_MARKS = 60;

/** Draws calls of a run, in the stretch that its timeline shows. */
class Rows {
  constructor(timeline, stretch) {
    this.timeline = timeline;
    this.run = timeline.run;
    this.stretch = stretch;
  }

  /** Return a call as a row of the tree. */
  row(node, index) {
    const { span } = node;
    const { closed, picked } = this.timeline;
    const siblings = node.above ? node.above.children : this.run.roots;
    const row = make("div", {
      id: `call-${span.id}`, class: this.classes(node), role: "row",
      "aria-level": node.depth + 1, "aria-rowindex": index + 2,
      "aria-setsize": siblings.length, "aria-posinset": siblings.indexOf(node) + 1,
      "aria-selected": String(span.id === picked),
      "aria-expanded": node.children.length ? String(!closed.has(span.id)) : null,
    }, this.calledCell(node), this.barCell(node), this.lastedCell(span));
    row.dataset.index = index;
    return row;
  }

  classes(node) {
    const { hits } = this.timeline;
    const names = ["row", `is-${node.span.status}`];
    if (hits.has(node.span.id)) names.push("hit");
    if (hits.size && !hits.has(node.span.id)) names.push("miss");
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
    const [from, to] = this.stretch.sharesOf(span);
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
    return spread(bar, from, to);
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
      const [from, to] = [this.stretch.share(at), this.stretch.share(until)];
      if (to < 0 || from > 1) return null;
      const wait = make("div", { class: "wait", title: `waits ${inSeconds(until - at)}` });
      return spread(wait, from, to);
    }).filter(Boolean);
  }

  marks(span) {
    const marks = [];
    const { width } = this.timeline.axis;
    let last = -Infinity;
    for (const event of span.events) {
      const share = this.stretch.share(event.at);
      if (share < 0 || share > 1 || marks.length >= MOST_MARKS) continue;
      if (event.name === "retry.attempt" || (share - last) * width < 11) continue;
      last = share;
      const { icon: name, tone } = markOf(event);
      const title = `${asMoment(event.at, 0.001)}: ${event.name}`;
      const mark = make("span", { class: `mark tone-${tone}`, title }, icon(name));
      marks.push(placed(mark, share));
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

/** Return the class of a primitive in few words, if its name does not say it. */
function kindOf(span) {
  const short = span.kind.replace(/Primitive$/, "");
  const name = span.name.toLowerCase().replace(/[^a-z]/g, "");
  return short.toLowerCase() === name || short === "Step" || short === "Lambda" ? "" : short;
}
