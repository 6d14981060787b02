// One test: what broke, how to bring it back, its timeline, and the failure's text.

const MOST_SLEEPS = 200;

/** Return the parts of the article about a test; the timeline is put in its place. */
function articleOf(test, timeline, onback, onpick) {
  return [
    articleHead(test, onback),
    brokenOf(test),
    replayOf(test),
    struckOf(test, timeline, onpick),
    timeline ? timeline.element : untracedOf(test),
    failureOf(test),
    problemsOf(test),
    totalsOf(test),
    exploredOf(test),
    sleepsOf(test),
  ];
}

function articleHead(test, onback) {
  const [name, file] = nameOf(test);
  const { icon: picture, tone } = OUTCOME[test.outcome] || OUTCOME.passed;
  const where = file ? `${file}${test.line ? `:${test.line}` : ""}` : "";
  return make("div", { class: "article-head" },
    iconButton("back", "Back to the tests", onback, { class: "quiet icon back" }),
    make("div", { class: "titles" },
      make("h2", { title: test.node_id }, make("bdi", { text: name })),
      make("p", { class: "where" }, make("bdi", { class: "code", text: where }))),
    make("span", { class: `badge tone-${tone}` }, icon(picture), test.outcome),
    make("dl", { class: "numbers" }, numbersOf(test).map(([term, value]) =>
      make("div", null, make("dt", { text: term }), make("dd", { text: value })))));
}

function numbersOf(test) {
  const numbers = [];
  const { tta } = test;
  if (tta) numbers.push(["virtual time", inSeconds(tta.virtual_seconds)]);
  numbers.push(["real time", inSeconds(test.real_seconds)]);
  if (tta) numbers.push(["seed", String(tta.seed)]);
  if (tta && tta.exploration) {
    numbers.push(["executions", tta.exploration.executions.toLocaleString("en-US")]);
  }
  if (test.attempt > 1) numbers.push(["attempt", String(test.attempt)]);
  return numbers;
}

function brokenOf(test) {
  const verdict = test.tta && test.tta.exploration && test.tta.exploration.verdict;
  const text = verdict ? verdict.text : headline(test);
  if (!text) return null;
  const lead = verdict ? `Exploring found: ${verdict.kind.replace(/_/g, " ")}` : "";
  return make("section", { class: "broken", "aria-label": "What broke" },
    lead ? make("p", { class: "lead", text: lead }) : null,
    make("p", { class: "what", dir: "auto", text: firstLines(text) }),
    verdict && verdict.where
      ? make("p", { class: "soft code", text: verdict.where }) : null,
    neededFor(test));
}

/** Return what it takes to break the test, if its failure says that. */
function neededFor(test) {
  const lines = test.failure.split("\n");
  const at = lines.indexOf("what it takes:");
  if (at < 0) return null;
  const rest = lines.slice(at + 1);
  const end = rest.findIndex((line) => !line.startsWith("  "));
  const told = rest.slice(0, end < 0 ? rest.length : end).map((line) => line.slice(2));
  return make("div", { class: "needed" }, make("p", { class: "lead", text: "What it takes" }),
    make("p", { class: "what", text: told.join("\n") }));
}

function firstLines(text) {
  const lines = text.split("\n").filter((line) => line.trim()).slice(0, 6).join("\n");
  return lines.length > 600 ? `${lines.slice(0, 600)}…` : lines;
}

function replayOf(test) {
  if (!test.replay) return null;
  return make("div", { class: "replay" },
    make("span", { class: "term", text: "Bring it back" }),
    make("code", { tabindex: "0", role: "group", "aria-label": "Command",
      text: test.replay }), copyButton(test.replay, "Copy the command"));
}

function struckOf(test, timeline, onpick) {
  const struck = timeline ? timeline.run.struck().slice(0, 12) : [];
  if (!struck.length) return null;
  return make("section", { class: "struck", "aria-label": "Injected faults" },
    make("span", { class: "term", text: struck.length > 1 ? "Faults" : "Fault" }),
    make("ul", null, struck.map(({ span }) => make("li", null,
      make("span", { class: "sign tone-fault" }, icon("bolt")),
      make("button", { type: "button", class: "link", onclick: () => onpick(span.id) },
        make("bdi", { text: titleOf(span) })),
      make("span", { class: "soft at", text: asMoment(span.started_at, 0.001) }),
      make("bdi", { class: "code", text: span.fault })))));
}

function untracedOf(test) {
  if (test.tta && test.tta.run) return null;
  const why = test.tta
    ? "No timeline is kept of this test. With --tta-runs=all there is one of each."
    : "This test did not use the plugin, so there is no timeline.";
  return make("p", { class: "hint", text: why });
}

function failureOf(test) {
  if (!test.failure) return null;
  const lines = test.failure.trimEnd().split("\n").map((line) => {
    const name = /^E(\s|$)/.test(line) ? "is-error" : /^>/.test(line) ? "is-here" : null;
    return name ? make("span", { class: name, text: `${line}\n` }) : `${line}\n`;
  });
  return make("section", { class: "failure" },
    make("div", { class: "block-head" }, make("h3", { text: "Failure" }),
      copyButton(test.failure, "Copy the text of the failure")),
    make("pre", { tabindex: "0", role: "group", "aria-label": "Text of the failure" },
      lines));
}

function problemsOf(test) {
  const problems = test.tta && test.tta.run ? test.tta.run.problems : [];
  if (!problems.length) return null;
  return make("section", null, make("h3", { text: "Also noticed" }),
    make("ul", { class: "plain-list" }, problems.map((problem) =>
      make("li", { dir: "auto", text: problem }))));
}

function totalsOf(test) {
  const totals = test.tta ? test.tta.totals : [];
  if (!totals.length) return null;
  const columns = [["runs", "runs"], ["failed", "failed"], ["calls", "calls"],
    ["retries", "retries"], ["faults", "faults"], ["virtual time", "virtual_seconds"]];
  const head = make("tr", null, make("th", { scope: "col", text: "Workflow" }),
    columns.map(([name]) => make("th", { scope: "col", text: name })));
  const rows = totals.map((total) => make("tr", null,
    make("th", { scope: "row" }, make("bdi", { class: "code", text: total.workflow })),
    columns.map(([, key]) => make("td", {
      text: key === "virtual_seconds" ? inSeconds(total[key]) : String(total[key]),
      class: total[key] ? null : "zero",
    }))));
  return make("section", null, make("h3", { text: "Workflows" }),
    make("div", { class: "wide", tabindex: "0", role: "group", "aria-label": "Workflows" },
      make("table", null, make("thead", null, head), make("tbody", null, rows))));
}

function exploredOf(test) {
  const explored = test.tta && test.tta.exploration;
  if (!explored) return null;
  const told = [count(explored.executions, "execution")];
  if (explored.rounds) told.push(count(explored.rounds, "round"));
  told.push(`${count(explored.reached.length, "fault")} reached`);
  const lines = [told.join(", ")];
  if (explored.all_orders) lines.push("All orders of events were tried.");
  if (explored.replay) lines.push(explored.replay);
  if (explored.certificate) lines.push(explored.certificate);
  const unreached = explored.unreached.length
    ? make("p", { class: "soft" }, "Not reached: ",
      make("bdi", { class: "code", text: explored.unreached.slice(0, 30).join("  ") }))
    : null;
  return make("section", null, make("h3", { text: "Exploration" }),
    lines.map((line) => make("p", { text: line })), unreached);
}

function sleepsOf(test) {
  const sleeps = test.tta && test.tta.run ? test.tta.run.sleeps : [];
  if (!sleeps.length) return null;
  const rows = sleeps.slice(0, MOST_SLEEPS).map((sleep) => make("tr", null,
    make("td", { text: asMoment(sleep.at, 0.001) }),
    make("td", { text: inSeconds(sleep.seconds) }),
    make("td", null, make("bdi", { class: "code", text: sleep.where })),
    make("td", null, make("bdi", { class: "code", text: sleep.task }))));
  const head = ["at", "for", "where", "task"].map((name) =>
    make("th", { scope: "col", text: name }));
  const rest = sleeps.length - rows.length;
  return make("details", { class: "sleeps" },
    make("summary", { text: count(sleeps.length, "wait") }),
    make("div", { class: "wide", tabindex: "0", role: "group", "aria-label": "Waits" },
      make("table", null, make("thead", null, make("tr", null, head)),
        make("tbody", null, rows))),
    rest > 0 ? make("p", { class: "soft", text: `and ${count(rest, "more")}` }) : null);
}
