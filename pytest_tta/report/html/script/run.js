// A run: its spans as a tree, which of them are in trouble, and what happened in them.

const MARKS = [
  [/^fault\./, "bolt", "fault"],
  [/^retry\.(exhausted|gave_up|budget_exhausted)/, "cross", "failed"],
  [/^retry\.|^hedge\./, "retry", "late"],
  [/^cache\.hit|^cache\.coalesced/, "cache", "ok"],
  [/^cache\./, "cache", "gone"],
  [/^breaker\.(opened|rejected|isolated)/, "breaker", "failed"],
  [/^breaker\./, "breaker", "gone"],
  [/^timeout\./, "clock", "late"],
  [/^(llm|model)\./, "speech", "gone"],
  [/failed|rejected|error/, "cross", "failed"],
];

/** Return the icon and the tone of an event. */
function markOf(event) {
  const found = MARKS.find(([pattern]) => pattern.test(event.name));
  return found ? { icon: found[1], tone: found[2] } : { icon: "diamond", tone: "gone" };
}

/** Spans with their children, depths and places, as a timeline needs them. */
class Run {
  constructor(record) {
    this.record = record;
    this.moments = momentsOf(record);
    this.last = this.moments[this.moments.length - 1] || 0;
    this.nodes = record.spans.map((span) => ({ span, children: [], depth: 0 }));
    this.roots = [];
    for (const node of this.nodes) this.place(node);
    for (let i = this.nodes.length - 1; i >= 0; i -= 1) this.judge(this.nodes[i]);
    this.deepest = this.nodes.reduce((most, node) => Math.max(most, node.depth), 0);
  }

  place(node) {
    const { parent } = node.span;
    const above = parent === null ? undefined : this.nodes[parent];
    node.above = above && above !== node ? above : null;
    node.depth = node.above ? node.above.depth + 1 : 0;
    (node.above ? node.above.children : this.roots).push(node);
  }

  judge(node) {
    const { span } = node;
    const own = span.status !== "ok" || span.fault !== "";
    node.isTrouble = own || node.children.some((child) => child.isTrouble);
  }

  endOf(span) {
    return isNumber(span.ended_at) ? span.ended_at : this.last;
  }

  lasted(span) {
    return isNumber(span.ended_at) ? span.ended_at - span.started_at : null;
  }

  /** Return the node that a reader wants to see first: the last that went wrong. */
  guilty() {
    const last = new Map();
    for (const node of this.nodes) {
      const { status } = node.span;
      if (!node.children.some((one) => one.span.status === status)) last.set(status, node);
    }
    const found = ["failed", "timed_out", "unfinished", "cancelled"]
      .find((status) => last.has(status));
    return found ? last.get(found) : this.nodes.find((one) => one.isTrouble) || null;
  }

  /** Return the visible nodes in order: what is below a closed one is left out. */
  rows(closed, onlyTrouble) {
    const rows = [];
    const waiting = [...this.roots].reverse();
    while (waiting.length) {
      const node = waiting.pop();
      if (onlyTrouble && !node.isTrouble) continue;
      rows.push(node);
      if (closed.has(node.span.id)) continue;
      for (let i = node.children.length - 1; i >= 0; i -= 1) {
        waiting.push(node.children[i]);
      }
    }
    return rows;
  }

  /** Return the faults that struck, as nodes. */
  struck() {
    return this.nodes.filter(({ span }) => span.fault);
  }
}

/** Return how a span is called: `llm`, or `llm@2` for the second at its path. */
function titleOf(span) {
  return span.execution > 1 ? `${span.label}@${span.execution}` : span.label;
}

/** Return what a span came to in a few words: "failed: ConnectionError". */
function outcomeOf(span) {
  const { word } = STATUS[span.status];
  if (!span.error || span.status === "cancelled") return word;
  return `${word}: ${span.error.type}`;
}

/** Return all that a span says, for searching. */
function textOf(span) {
  const error = span.error ? `${span.error.type} ${span.error.message}` : "";
  const said = span.messages.map((message) => message.text).join("\n");
  const told = span.events.map(({ name }) => name).join(" ");
  const words = [span.path, span.label, span.kind, outcomeOf(span), span.fault, error];
  return [...words, span.input, span.output, said, told].join("\n").toLowerCase();
}

/** Return where a retry waits: pairs of moments. */
function waitsOf(span) {
  return span.events
    .filter((event) => event.name === "retry.scheduled")
    .map((event) => [event.at, event.at + parseFloat(event.detail.delay)])
    .filter(([, end]) => isNumber(end));
}
