// The panel about one call: what it was given, what came back, what happened inside.

const MOST_TEXT = 1500;
const MOST_EVENTS = 200;

/** Return the content of the panel about a span. */
function detailsOf(run, span, onclose, onpick) {
  return [
    detailsHead(span, onclose),
    make("div", { class: "scroll", tabindex: "0", role: "group",
      "aria-label": "About this call" },
      detailsFacts(run, span), faultOf(span), errorOf(span), messagesOf(span),
      textBlock("Input", span.input), span.error ? null : textBlock("Output", span.output),
      eventsOf(run, span), childrenOf(run, span, onpick)),
  ];
}

function detailsHead(span, onclose) {
  const title = make("h3", null, make("bdi", { text: titleOf(span) }));
  const badge = make("span", { class: `badge tone-${span.status}` },
    icon(STATUS[span.status].icon), STATUS[span.status].word);
  return make("div", { class: "details-head" }, title, badge,
    iconButton("close", "Close (Esc)", onclose));
}

function detailsFacts(run, span) {
  const lasted = run.lasted(span);
  const precise = 0.001;
  const facts = [
    ["Path", make("bdi", { text: span.path, class: "code" })],
    ["Kind", span.kind],
    ["Began", asMoment(span.started_at, precise)],
    ["Ended", lasted === null ? "did not end" : asMoment(span.ended_at, precise)],
    ["Took", lasted === null ? "" : exactly(lasted)],
    ["Task", make("bdi", { text: span.task, class: "code" })],
  ];
  return make("dl", { class: "facts-list" }, facts
    .filter(([, value]) => value !== "")
    .map(([name, value]) => make("div", null, make("dt", { text: name }),
      make("dd", null, value))));
}

/** Return a duration, with its seconds where the short form leaves some out. */
function exactly(seconds) {
  const short = inSeconds(seconds);
  return seconds >= 60 ? `${short} (${Number(seconds.toPrecision(12))} s)` : short;
}

function faultOf(span) {
  if (!span.fault) return null;
  return make("div", { class: "note tone-fault" }, icon("bolt"),
    make("p", null, make("strong", { text: "Injected fault" }), " ",
      make("bdi", { text: span.fault })));
}

function errorOf(span) {
  if (!span.error) return null;
  return make("div", { class: `note tone-${span.status}` },
    icon(STATUS[span.status].icon), make("div", null,
      make("strong", { class: "code", text: span.error.type }),
      longText(span.error.message)));
}

function messagesOf(span) {
  if (!span.messages.length) return null;
  const said = span.messages.map((message) => make("li", {
    class: `said role-${/^[a-z]+$/.test(message.role) ? message.role : "other"}`,
  }, make("span", { class: "who", text: message.role }), longText(message.text)));
  return make("section", null, make("h4", { text: "Messages" }),
    make("ol", { class: "messages" }, said));
}

function textBlock(title, text) {
  if (!text) return null;
  return make("section", { class: "block" },
    make("div", { class: "block-head" }, make("h4", { text: title }),
      copyButton(text, `Copy ${title.toLowerCase()}`)),
    longText(text, "code"));
}

/** Return a text of which only the beginning is shown if it is long. */
function longText(text, name) {
  const holder = make("div", { class: `long ${name || ""}`.trim(), dir: "auto" });
  if (text.length <= MOST_TEXT) {
    holder.textContent = text;
    return holder;
  }
  const rest = text.length - MOST_TEXT;
  const more = make("button", {
    type: "button", class: "more", text: `Show ${count(rest, "more character")}`,
    onclick: () => { holder.textContent = text; },
  });
  holder.append(text.slice(0, MOST_TEXT), "… ", more);
  return holder;
}

function eventsOf(run, span) {
  if (!span.events.length) return null;
  const shown = span.events.slice(0, MOST_EVENTS).map((event) => {
    const { icon: picture, tone } = markOf(event);
    return make("li", null,
      make("span", { class: `sign tone-${tone}` }, icon(picture)),
      make("span", { class: "at", text: asMoment(event.at, 0.001) }),
      make("div", null, make("span", { class: "code event-name", text: event.name }),
        detailOf(event)));
  });
  const rest = span.events.length - shown.length;
  return make("section", null, make("h4", { text: "Events" }),
    make("ol", { class: "events" }, shown),
    rest > 0 ? make("p", { class: "soft", text: `and ${count(rest, "more")}` }) : null);
}

function detailOf(event) {
  const entries = Object.entries(event.detail);
  if (!entries.length) return null;
  return make("span", { class: "event-detail" }, entries.map(([key, value]) =>
    make("span", null, make("span", { class: "key", text: `${key} ` }),
      make("bdi", { class: "code", text: value }), " ")));
}

function childrenOf(run, span, onpick) {
  const { children, above } = run.nodes[span.id];
  const near = [...(above ? [["in ", above.span]] : []),
    ...children.slice(0, 20).map((node) => ["", node.span])];
  if (!near.length) return null;
  return make("section", null, make("h4", { text: "Around it" }),
    make("ul", { class: "near" }, near.map(([word, other]) => make("li", null,
      word, make("button", {
        type: "button", class: "link", onclick: () => onpick(other.id),
      }, make("bdi", { text: titleOf(other) })),
      make("span", { class: `soft tone-${other.status}`,
        text: other.status === "ok" ? "" : outcomeOf(other) })))));
}
