// What is printed: every failing run with its timeline, and no controls.

const MOST_TESTS = 100;
const MOST_ROWS = 250;

/** Return what stands on paper about a session. */
function paperOf(record) {
  const failed = entriesOf(record.tests)
    .filter(({ test }) => test.outcome === "failed" || test.outcome === "error");
  const rest = failed.length - MOST_TESTS;
  return [
    make("h1", { text: "Test report" }),
    make("p", { text: `${outcomesSaid(record)} · ${sessionSaid(record)}` }),
    ...failed.slice(0, MOST_TESTS).map(({ test }) => paperTest(test)),
    rest > 0 ? make("p", { text: `${count(rest, "more failing test")} left out.` }) : "",
  ];
}

function paperTest(test) {
  const run = test.tta && test.tta.run ? new Run(test.tta.run) : null;
  return make("section", { class: "paper-test" },
    make("h2", null, make("bdi", { text: test.node_id })),
    make("p", { class: "soft", text: [test.outcome, ...numbersOf(test)
      .map((pair) => pair.join(" "))].join(" · ") }),
    brokenOf(test),
    test.replay ? make("pre", { class: "command", text: test.replay }) : null,
    run && run.nodes.length ? paperRun(run) : null,
    test.failure ? make("pre", { text: test.failure }) : null);
}

function paperRun(run) {
  const scale = new Scale(run.moments, true);
  const rows = run.rows(new Set(), run.nodes.length > MOST_ROWS);
  const shown = rows.slice(0, MOST_ROWS).map((node) => paperRow(run, scale, node));
  const rest = run.nodes.length - shown.length;
  return make("div", { class: "paper-run" }, paperFolds(scale), shown,
    rest > 0 ? make("p", { text: `${count(rest, "more call")} left out.` }) : null);
}

function paperFolds(scale) {
  const bands = scale.folds.map((fold) => {
    const band = make("div", { class: "folded" },
      make("span", { text: inSeconds(fold.size) }));
    band.style.left = `${(fold.begin / scale.length) * 100}%`;
    band.style.width = `${((fold.end - fold.begin) / scale.length) * 100}%`;
    return band;
  });
  return make("div", { class: "paper-row paper-head" }, make("span"),
    make("div", { class: "when" }, bands), make("span"));
}

function paperRow(run, scale, node) {
  const { span } = node;
  const name = make("span", { class: "called" }, make("bdi", { text: titleOf(span) }));
  name.style.paddingLeft = `${Math.min(node.depth * 10, 120)}px`;
  const bar = make("div", {
    class: `bar is-${span.status}${node.children.length ? " outer" : ""}`,
  });
  const from = scale.at(span.started_at) / scale.length;
  bar.style.left = `${from * 100}%`;
  bar.style.width = `${(scale.at(run.endOf(span)) / scale.length - from) * 100}%`;
  const lasted = run.lasted(span);
  const said = [lasted === null ? "" : inSeconds(lasted),
    span.status === "ok" ? "" : outcomeOf(span), span.fault ? "(injected)" : ""];
  return make("div", { class: "paper-row" }, name, make("div", { class: "when" }, bar),
    make("span", { class: "came", text: said.filter(Boolean).join(" ") }));
}
