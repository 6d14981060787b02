// The page as a whole: what is shown, the address, the keyboard, the theme.

const HELP = [
  ["Everywhere", [
    ["/", "search"], ["Enter", "in the search: go to the next call that was found"],
    ["[ ]", "the test before, the test after"], ["t", "light or dark"],
    ["?", "this help"], ["Esc", "close, or clear the search"],
  ]],
  ["Tests", [["j k ↓ ↑", "move"], ["Enter", "open: go to the timeline"]]],
  ["Timeline", [
    ["j k ↓ ↑", "move"], ["← →", "close or open, go to the parent or the first child"],
    ["Enter", "open the panel about the call"], ["+ -", "zoom"],
    ["0", "show all of the time"], ["z", "zoom to the call"],
    ["Shift ← →", "move in time"], ["f", "fold long waits"],
    ["o", "only what went wrong"], ["a", "close or open all"],
    ["n N", "next and previous call that was found"],
  ]],
  ["Mouse", [
    ["Ctrl wheel", "zoom; over the axis also without Ctrl"],
    ["drag", "move in time; on the axis or the overview: zoom to a stretch"],
    ["double click", "zoom to a call"],
  ]],
];

function outcomesOf(record) {
  const counts = new Map();
  for (const { outcome } of record.tests) {
    counts.set(outcome, (counts.get(outcome) || 0) + 1);
  }
  return Object.keys(RANK).filter((name) => counts.has(name))
    .map((name) => [name, counts.get(name)]);
}

function outcomesSaid(record) {
  const said = outcomesOf(record).map(([name, number]) => `${number} ${name}`);
  return said.length ? said.join(", ") : "no tests";
}

function sessionSaid(record) {
  const when = record.created_at.replace("T", " ").replace(/(\.\d+)?(\+00:00|Z)$/, " UTC");
  return [`${inSeconds(record.real_seconds)} real`, `seed ${record.seed}`,
    `clock ${record.clock}`, `Python ${record.python}`, `pytest ${record.pytest}`, when]
    .join(" · ");
}

class Page {
  constructor(record) {
    this.record = record;
    this.find = (id) => document.getElementById(id);
    this.entries = entriesOf(record.tests);
    this.outcome = null;
    this.words = [];
    this.test = -1;
    this.span = null;
    this.timeline = null;
    this.list = new List(this.find("tests"), (index) => this.pick(index), (index) =>
      this.open(index));
    this.head();
    this.covered();
    this.watch();
    this.filter();
    this.follow();
  }

  head() {
    this.find("facts").textContent = sessionSaid(this.record);
    this.find("help").replaceChildren(icon("help"));
    this.find("help").setAttribute("aria-label", "Keys (?)");
    this.find("help").title = "Keys (?)";
    this.theme(null);
    this.drawOutcomes();
  }

  drawOutcomes() {
    const all = [[null, this.record.tests.length], ...outcomesOf(this.record)];
    this.find("outcomes").replaceChildren(...all.map(([name, number]) => make("button", {
      type: "button", "aria-pressed": String(this.outcome === name),
      class: `outcome tone-${name ? OUTCOME[name].tone : "all"}`,
      onclick: () => this.show(name),
    }, name ? icon(OUTCOME[name].icon) : null, `${name || "all"} `,
    make("b", { text: number.toLocaleString("en-US") }))));
  }

  covered() {
    const { coverage } = this.record;
    const section = this.find("coverage");
    if (section) this.find("covered").append(section);
    const views = this.find("views");
    views.hidden = !section || !coverage;
    if (views.hidden) return;
    this.views = {
      tests: make("a", { href: "#tests", text: "Tests" }),
      covered: make("a", { href: "#coverage" },
        "Coverage ", make("b", { text: `${Math.floor(coverage.percent)}%` })),
    };
    views.append(this.views.tests, this.views.covered);
  }

  watch() {
    this.find("query").addEventListener("input", () => this.search());
    this.find("query").addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      if (this.timeline) this.timeline.nextHit(event.shiftKey ? -1 : 1);
    });
    this.find("theme").addEventListener("click", () => this.theme(this.otherTheme()));
    this.find("help").addEventListener("click", () => this.help());
    window.addEventListener("hashchange", () => this.follow());
    document.addEventListener("keydown", (event) => this.onkey(event));
    this.find("details").addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      this.closeDetails();
    });
    const paper = window.matchMedia("print");
    paper.addEventListener("change", () => this.paper(paper.matches));
    window.addEventListener("beforeprint", () => this.paper(true));
    window.addEventListener("afterprint", () => this.paper(false));
    window.matchMedia("(prefers-color-scheme: dark)")
      .addEventListener("change", () => this.theme(null));
  }

  // Tests.

  show(outcome) {
    this.outcome = outcome;
    this.drawOutcomes();
    this.filter();
    const pressed = this.find("outcomes").querySelector("[aria-pressed=true]");
    if (pressed) pressed.focus();
  }

  search() {
    const query = this.find("query").value.trim().toLowerCase();
    this.words = query.split(/\s+/).filter(Boolean);
    this.filter();
    this.highlight();
  }

  filter() {
    const found = this.entries.filter((entry) =>
      (!this.outcome || entry.test.outcome === this.outcome) && isFound(entry, this.words));
    this.list.show(found);
    const isAll = found.length === this.entries.length;
    this.find("found").textContent = isAll ? ""
      : found.length ? `${found.length} of ${count(this.entries.length, "test")}`
        : "No test is like this.";
    const first = found[0];
    if (this.words.length && first && !found.some((one) => one.index === this.test)) {
      this.pick(first.index);
    }
  }

  highlight() {
    if (!this.timeline) return;
    const { nodes } = this.timeline.run;
    const hits = this.words.length ? nodes.filter(({ span }) => {
      const text = textOf(span);
      return this.words.every((word) => text.includes(word));
    }) : [];
    this.timeline.highlight(hits.map(({ span }) => span.id));
  }

  pick(index, span, isStep) {
    if (index !== this.test) this.draw(index);
    const isThere = this.timeline && this.timeline.run.nodes[span] !== undefined;
    if (isThere) {
      this.timeline.pick(span, true);
      this.openDetails(span, true);
    }
    this.address(isThere ? span : null, isStep);
  }

  /** Go into a test: on narrow screens it takes the place of the list. */
  open(index) {
    this.pick(index, undefined, true);
    document.body.dataset.pane = "test";
    if (this.timeline) this.timeline.body.focus({ preventScroll: true });
    else this.find("article").focus({ preventScroll: true });
  }

  draw(index) {
    const { test } = this.entries.find((entry) => entry.index === index);
    if (this.timeline) this.timeline.leave();
    this.test = index;
    this.span = null;
    const record = test.tta && test.tta.run;
    this.timeline = record && record.spans.length ? new Timeline(new Run(record),
      (id) => this.onspan(id), (id, isKey) => this.openDetails(id, !isKey)) : null;
    const parts = articleOf(test, this.timeline, () => this.back(), (id) =>
      this.pick(this.test, id));
    const article = this.find("article");
    article.replaceChildren(...parts.filter(Boolean));
    article.scrollTop = 0;
    this.list.pick(index);
    this.hideDetails();
    this.highlight();
    this.begin();
  }

  /** Select what a reader wants to see first. */
  begin() {
    const guilty = this.timeline && this.timeline.run.guilty();
    const first = guilty || (this.timeline && this.timeline.run.nodes[0]);
    if (!first) return;
    this.timeline.pick(first.span.id, true);
    if (isWide()) this.openDetails(first.span.id, true);
  }

  back() {
    document.body.dataset.pane = "list";
    this.hideDetails();
    this.find("tests").focus();
  }

  // The panel about a call.

  onspan(id) {
    this.address(id);
    if (!this.find("details").hidden) this.openDetails(id, true);
  }

  openDetails(id, isQuiet) {
    const details = this.find("details");
    const { run } = this.timeline;
    const moved = (other) => this.pick(this.test, other);
    details.replaceChildren(...detailsOf(run, run.nodes[id].span, () =>
      this.closeDetails(), moved));
    details.hidden = false;
    if (this.span !== id) this.address(id, false, true);
    if (!isQuiet) details.focus({ preventScroll: true });
  }

  hideDetails() {
    this.find("details").hidden = true;
  }

  closeDetails() {
    this.hideDetails();
    if (this.timeline) this.timeline.body.focus({ preventScroll: true });
  }

  // The address.

  address(span, isStep, isSilent) {
    this.span = span;
    if (isSilent || !this.isFollowed) return;
    const { test } = this.entries.find((entry) => entry.index === this.test);
    const parts = [`test=${encodeURIComponent(test.node_id)}`];
    if (test.attempt > 1) parts.push(`attempt=${test.attempt}`);
    if (span !== null) parts.push(`call=${span}`);
    const hash = `#${parts.join("&")}`;
    if (hash === window.location.hash) return;
    if (isStep) window.history.pushState(null, "", hash);
    else window.history.replaceState(null, "", hash);
  }

  /** Show what the address asks for, or else the first test. */
  follow() {
    const asked = new Map(window.location.hash.slice(1).split("&").map((part) => {
      const at = part.indexOf("=");
      return at < 0 ? [part, ""] : [part.slice(0, at), decoded(part.slice(at + 1))];
    }));
    this.view(asked.has("coverage") && this.views ? "covered" : "tests");
    const entry = this.entries.find(({ test }) => test.node_id === asked.get("test") &&
      String(test.attempt || 1) === (asked.get("attempt") || "1"));
    const span = Number(asked.get("call") || NaN);
    document.body.dataset.pane = entry ? "test" : "list";
    this.isFollowed = false;
    if (entry) this.pick(entry.index, Number.isInteger(span) ? span : undefined);
    else if (this.test < 0 && this.entries.length) this.pick(this.entries[0].index);
    this.isFollowed = true;
  }

  view(name) {
    document.body.dataset.view = name;
    this.find("covered").hidden = name !== "covered";
    for (const [key, link] of Object.entries(this.views || {})) {
      if (key === name) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }

  // Keys, help, theme, paper.

  onkey(event) {
    if (this.find("keys").open) return;
    const isTyping = event.target === this.find("query");
    if (event.key === "Escape") return void this.escape(isTyping);
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    const actions = {
      "/": () => this.find("query").select(), "?": () => this.help(),
      t: () => this.theme(this.otherTheme()),
      j: () => this.list.go(1), k: () => this.list.go(-1),
      "]": () => this.list.go(1), "[": () => this.list.go(-1),
    };
    const act = actions[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  escape(isTyping) {
    const query = this.find("query");
    if (isTyping || this.words.length) {
      query.value = "";
      this.search();
      if (isTyping) this.find("tests").focus();
    } else if (!this.find("details").hidden) this.closeDetails();
  }

  help() {
    const dialog = this.find("keys");
    if (dialog.open) return;
    dialog.replaceChildren(
      make("div", { class: "keys-head" }, make("h2", { id: "keys-title", text: "Keys" }),
        iconButton("close", "Close (Esc)", () => dialog.close())),
      make("div", { class: "keys-body", tabindex: "0", role: "group",
        "aria-label": "List of keys" }, HELP.map(([title, keys]) => make("section", null,
        make("h3", { text: title }), make("dl", null, keys.map(([key, what]) =>
          make("div", null, make("dt", null, make("kbd", { text: key })),
            make("dd", { text: what }))))))));
    dialog.showModal();
  }

  otherTheme() {
    return document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  }

  theme(name) {
    const isDark = window.matchMedia("(prefers-color-scheme: dark)").matches;
    const theme = name || (isDark ? "dark" : "light");
    document.documentElement.dataset.theme = theme;
    const button = this.find("theme");
    const other = theme === "dark" ? "light" : "dark";
    button.replaceChildren(icon(other));
    button.title = `Switch to ${other} (t)`;
    button.setAttribute("aria-label", button.title);
    if (this.timeline) this.timeline.redraw();
  }

  paper(isPrinting) {
    const paper = this.find("paper");
    if (isPrinting === !paper.hidden) return;
    paper.replaceChildren(...(isPrinting ? paperOf(this.record) : []));
    paper.hidden = !isPrinting;
  }
}

function isWide() {
  return window.matchMedia("(min-width: 1180px)").matches;
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch (error) {
    return text;
  }
}

/** Put the page in the place of the plain one, which stays if anything goes wrong. */
function start() {
  const record = JSON.parse(document.getElementById("record").textContent);
  const [plain, app] = [document.getElementById("plain"), document.getElementById("app")];
  app.hidden = false;
  try {
    new Page(record);
    plain.remove();
  } catch (error) {
    app.hidden = true;
    throw error;
  }
}

start();
