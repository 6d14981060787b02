// The list of tests: failing first, filtered, searched; only what is seen is drawn.

const RANK = { failed: 0, error: 1, passed: 2, skipped: 3 };

/** Return the tests with what the list needs, failing first. */
function entriesOf(tests) {
  const entries = tests.map((test, index) => ({ test, index, text: null }));
  const rank = ({ test }) => (test.outcome in RANK ? RANK[test.outcome] : 2);
  return entries.sort((a, b) => rank(a) - rank(b) || a.index - b.index);
}

/** Return whether all words are found in what a test says. */
function isFound(entry, words) {
  if (!words.length) return true;
  if (entry.text === null) entry.text = textOfTest(entry.test);
  return words.every((word) => entry.text.includes(word));
}

function textOfTest(test) {
  const told = [test.node_id.toLowerCase(), test.failure.toLowerCase()];
  const { tta } = test;
  if (tta) {
    told.push(tta.workflows.join("\n").toLowerCase());
    if (tta.exploration && tta.exploration.verdict) {
      told.push(tta.exploration.verdict.text.toLowerCase());
    }
    if (tta.run) {
      told.push(...tta.run.spans.map(textOf), tta.run.problems.join("\n").toLowerCase());
    }
  }
  return told.join("\n");
}

class List {
  constructor(element, onpick, onopen) {
    this.element = element;
    this.onpick = onpick;
    this.onopen = onopen;
    this.entries = [];
    this.picked = -1;
    this.space = make("div", { class: "space", role: "presentation" });
    element.append(this.space);
    this.redraw = beforeNextFrame(() => this.draw());
    element.addEventListener("scroll", this.redraw, { passive: true });
    element.addEventListener("keydown", (event) => this.onkey(event));
    element.addEventListener("click", (event) => this.onclick(event));
    new ResizeObserver(this.redraw).observe(element);
  }

  show(entries) {
    this.entries = entries;
    this.redraw();
  }

  rowHeight() {
    const style = getComputedStyle(this.element);
    return parseFloat(style.getPropertyValue("--entry")) || 48;
  }

  draw() {
    const height = this.rowHeight();
    const { scrollTop, clientHeight } = this.element;
    const first = Math.max(Math.floor(scrollTop / height) - BEYOND, 0);
    const last = Math.min(Math.ceil((scrollTop + clientHeight) / height) + BEYOND,
      this.entries.length);
    const shown = [];
    for (let i = first; i < last; i += 1) shown.push(this.entry(i, height));
    this.space.style.height = `${this.entries.length * height}px`;
    this.space.replaceChildren(...shown);
    const at = this.position();
    if (at >= first && at < last) {
      this.element.setAttribute("aria-activedescendant", `test-${this.picked}`);
    } else this.element.removeAttribute("aria-activedescendant");
  }

  position() {
    return this.entries.findIndex((entry) => entry.index === this.picked);
  }

  entry(at, height) {
    const { test, index } = this.entries[at];
    const { icon: picture, tone } = OUTCOME[test.outcome] || OUTCOME.passed;
    const [name, file] = nameOf(test);
    const element = make("div", {
      id: `test-${index}`, class: "entry", role: "option", title: test.node_id,
      "aria-selected": String(index === this.picked), "aria-posinset": at + 1,
      "aria-setsize": this.entries.length,
    },
    make("span", { class: `sign tone-${tone}` }, icon(picture)),
    make("span", { class: "away", text: `${test.outcome}: ` }),
    make("bdi", { class: "name", text: name }),
    make("bdi", { class: "file", text: file || "\u00a0" }), this.tags(test));
    element.style.top = `${at * height}px`;
    element.dataset.at = at;
    return element;
  }

  tags(test) {
    const tags = [];
    if (test.attempt > 1) tags.push(make("span", { text: `attempt ${test.attempt}` }));
    if (test.tta && test.tta.virtual_seconds) {
      tags.push(make("span", { text: inSeconds(test.tta.virtual_seconds) }));
    }
    return make("span", { class: "tags" }, tags);
  }

  pick(index) {
    this.picked = index;
    const at = this.position();
    const height = this.rowHeight();
    const { scrollTop, clientHeight } = this.element;
    if (at >= 0 && at * height < scrollTop) this.element.scrollTop = at * height;
    else if ((at + 1) * height > scrollTop + clientHeight) {
      this.element.scrollTop = (at + 1) * height - clientHeight;
    }
    this.redraw();
  }

  go(by) {
    if (!this.entries.length) return;
    const at = clamped(this.position() + by, 0, this.entries.length - 1);
    this.onpick(this.entries[at].index);
  }

  onclick(event) {
    const element = event.target.closest(".entry");
    if (!element) return;
    const { index } = this.entries[Number(element.dataset.at)];
    this.onopen(index);
  }

  onkey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { length } = this.entries;
    const page = Math.max(Math.floor(this.element.clientHeight / this.rowHeight()), 1);
    const actions = {
      ArrowDown: () => this.go(1), j: () => this.go(1),
      ArrowUp: () => this.go(-1), k: () => this.go(-1),
      PageDown: () => this.go(page), PageUp: () => this.go(-page),
      Home: () => this.go(-length), End: () => this.go(length),
      Enter: () => this.picked >= 0 && this.onopen(this.picked),
    };
    const act = actions[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }
}
