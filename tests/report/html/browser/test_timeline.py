"""The timeline: bars where the times are, and what people do with it."""

from __future__ import annotations

import pytest

from tests.report.html.sessions import (
    example,
    item,
    large,
    session,
    span,
    written,
)

STATES = ("ok", "failed", "timed_out", "cancelled", "unfinished")


def event(at, name, **detail):
    """Return something that happened inside a call."""
    return {"at": at, "name": name, "detail": detail}


def one(*spans, **changes):
    """Return a session with one failing test that did this."""
    test = written("test_a.py::test_a", item(*spans, **changes), outcome="failed")
    return session(test)


def ten_seconds():
    """Return a run of ten seconds with two halves; the second has two parts."""
    return one(
        span(0, label="root", started_at=0.0, ended_at=10.0),
        span(1, 0, label="first", started_at=0.0, ended_at=5.0),
        span(2, 0, label="second", started_at=5.0, ended_at=10.0),
        span(3, 2, label="inner", started_at=5.0, ended_at=7.5),
        span(4, 2, label="last", started_at=10.0, ended_at=10.0),
    )


def labels(shown):
    """Return the names of the calls that are listed, from top to bottom."""
    return shown.texts(".tree .row .label")


def width(shown, number):
    """Return how wide the bar of a call is drawn."""
    return shown.box(f"#call-{number} .bar")["width"]


def test_bars_are_drawn_where_the_times_are(show) -> None:
    """Left ends are beginnings, right ends are ends, in one measure for all rows."""
    shown = show(ten_seconds())
    root, *parts = (shown.box(f"#call-{i} .bar") for i in range(4))
    second = root["width"] / 10
    drawn = [
        (round((bar["x"] - root["x"]) / second, 1), round(bar["width"] / second, 1))
        for bar in parts
    ]
    assert drawn == [(0.0, 5.0), (5.0, 5.0), (5.0, 2.5)]
    assert labels(shown) == ["root", "first", "second", "inner", "last"]
    assert shown.texts(".tree .row .lasted") == ["10 s", "5 s", "5 s", "2.5 s", "0 s"]


def test_axis_tells_the_time_above_the_bars(show) -> None:
    """The label of five seconds stands where what begins then has its bar."""
    shown = show(ten_seconds())
    assert shown.texts(".tick")[:2] == ["0 s", "5 s"]
    zero, five = (
        one.bounding_box()["x"] for one in shown.page.locator(".tick").all()[:2]
    )
    assert zero == pytest.approx(shown.box("#call-1 .bar")["x"], abs=1.5)
    assert five == pytest.approx(shown.box("#call-2 .bar")["x"], abs=1.5)


def test_call_that_took_no_time_can_be_seen(show) -> None:
    """It has a shape of its own, and is wide enough to be hit."""
    shown = show(ten_seconds())
    bar = shown.box("#call-4 .bar.instant")
    assert bar["width"] >= 6
    assert bar["height"] >= 6


def test_states_differ_in_words_and_shape(show) -> None:
    """Nobody has to tell red from green."""
    spans = [
        span(i, label=state, status=state, started_at=0.0, ended_at=8.0)
        for i, state in enumerate(STATES)
    ]
    spans[1]["error"] = {"type": "OSError", "message": "no"}
    spans[4]["ended_at"] = None
    shown = show(one(*spans))
    assert shown.texts(".caption") == [
        "OSError",
        "timed out",
        "cancelled",
        "unfinished",
    ]
    looks = shown.page.locator(".tree .bar").evaluate_all(
        "bars => bars.map((bar) => { const s = getComputedStyle(bar);"
        " return [s.borderTopStyle, s.borderRightStyle, s.borderRightWidth,"
        " s.backgroundImage.slice(0, 9)].join(' '); })"
    )
    assert len(set(looks)) == len(STATES), looks
    assert shown.texts(".tree .lasted")[-1] == "…"
    signs = shown.page.locator(".tree .sign").evaluate_all("s => s.map((x) => x.title)")
    assert signs == ["failed", "timed out", "cancelled", "unfinished"]


def test_long_wait_is_folded_and_unfolded(show) -> None:
    """An hour of waiting leaves room for a second before it; one key shows it whole."""
    shown = show(
        one(
            span(0, label="root", started_at=0.0, ended_at=3602.0),
            span(1, 0, label="first", started_at=0.0, ended_at=1.0),
            span(2, 0, label="again", started_at=3601.0, ended_at=3602.0),
        )
    )
    assert shown.texts(".head-fold") == ["1 h"]
    assert width(shown, 1) > 100
    shown.page.locator(".tree").focus()
    shown.press("f")
    assert shown.texts(".head-fold") == []
    assert width(shown, 1) < 5
    shown.press("f")
    assert width(shown, 1) > 100


def test_short_run_has_nothing_to_fold(show) -> None:
    """Where every stretch can be seen, the button is not there."""
    shown = show(ten_seconds())
    assert not shown.page.get_by_role("button", name="Fold long waits").is_visible()


def test_zoom_by_keys_and_back(show) -> None:
    """`+` makes twice as much of half the time, `0` shows all of it."""
    shown = show(ten_seconds())
    before = width(shown, 3)
    shown.page.locator(".tree").focus()
    shown.press("j", "j", "j", "+")
    assert width(shown, 3) == pytest.approx(2 * before, rel=0.05)
    shown.press("-")
    assert width(shown, 3) == pytest.approx(before, rel=0.05)
    shown.press("z")
    assert width(shown, 3) > 2 * before
    shown.press("0")
    assert width(shown, 3) == pytest.approx(before, rel=0.01)


def test_zoom_with_the_wheel_keeps_the_place(show) -> None:
    """What is under the mouse stays there."""
    shown = show(ten_seconds())
    bar = shown.box("#call-3 .bar")
    axis = shown.box(".axis-cell")
    shown.page.mouse.move(bar["x"] + 0.5, axis["y"] + 8)
    shown.page.mouse.wheel(0, -120)
    shown.settle()
    zoomed = shown.box("#call-3 .bar")
    assert zoomed["width"] > bar["width"] * 1.2
    assert zoomed["x"] == pytest.approx(bar["x"], abs=3)


def test_dragging_moves_in_time_and_marks_a_stretch(show) -> None:
    """A drag on the axis zooms to it, one on the bars moves them."""
    shown = show(ten_seconds())
    axis = shown.box(".axis-cell")
    mouse = shown.page.mouse
    mouse.move(axis["x"] + axis["width"] * 0.5, axis["y"] + 8)
    mouse.down()
    mouse.move(axis["x"] + axis["width"] * 0.8, axis["y"] + 8, steps=4)
    mouse.up()
    shown.settle()
    before = shown.box("#call-2 .bar")
    assert before["width"] > axis["width"] * 0.9
    row = shown.box("#call-3 .when")
    mouse.move(row["x"] + 200, row["y"] + 5)
    mouse.down()
    mouse.move(row["x"] + 100, row["y"] + 5, steps=4)
    mouse.up()
    shown.settle()
    inner = shown.box("#call-3 .bar")
    assert inner["x"] + inner["width"] < row["x"] + row["width"]


def test_drag_that_is_taken_away_is_over(show) -> None:
    """A finger that begins to scroll drags nothing any more."""
    shown = show(ten_seconds())
    axis = shown.box(".axis-cell")
    before = shown.box("#call-2 .bar")
    mouse = shown.page.mouse
    mouse.move(axis["x"] + axis["width"] * 0.5, axis["y"] + 8)
    mouse.down()
    mouse.move(axis["x"] + axis["width"] * 0.6, axis["y"] + 8, steps=4)
    shown.page.evaluate("window.dispatchEvent(new PointerEvent('pointercancel'))")
    mouse.move(axis["x"] + axis["width"] * 0.8, axis["y"] + 8, steps=4)
    mouse.up()
    shown.settle()
    assert shown.box("#call-2 .bar") == before


def test_keys_move_and_fold_the_tree(show) -> None:
    """Arrows and j, k go through the rows; left closes or goes out, right goes in."""
    shown = show(ten_seconds())
    shown.page.locator(".tree").focus()
    shown.press("Home")
    assert shown.picked() == "root"
    shown.press("j", "ArrowDown")
    assert shown.picked() == "second"
    shown.press("ArrowLeft")
    assert labels(shown) == ["root", "first", "second"]
    shown.press("ArrowRight", "ArrowRight")
    assert shown.picked() == "inner"
    shown.press("ArrowLeft")
    assert shown.picked() == "second"
    shown.press("k", "k", "ArrowLeft")
    assert labels(shown) == ["root"]
    shown.press("a")
    assert len(labels(shown)) == 5
    shown.press("End")
    assert shown.picked() == "last"


def test_tree_tells_its_structure_to_screen_readers(show) -> None:
    """Levels, positions and states are attributes, whatever is drawn."""
    shown = show(ten_seconds())
    rows = shown.page.locator(".tree .row").evaluate_all(
        "rows => rows.map((row) => ['level', 'setsize', 'posinset', 'expanded']"
        ".map((name) => row.getAttribute('aria-' + name)))"
    )
    assert rows == [
        ["1", "1", "1", "true"],
        ["2", "2", "1", None],
        ["2", "2", "2", "true"],
        ["3", "2", "1", None],
        ["3", "2", "2", None],
    ]
    cell = shown.page.locator("#call-3 .when")
    assert cell.get_attribute("aria-label") == "from 5 s; took 2.5 s; ok"


def test_enter_opens_the_panel_and_escape_leaves_it(show) -> None:
    """The keyboard goes into the panel and comes back to the tree."""
    shown = show(ten_seconds(), width=1000)
    tree = shown.page.locator(".tree")
    tree.focus()
    shown.press("End", "Enter")
    assert shown.page.locator("#details h3").inner_text() == "last"
    assert shown.page.evaluate("document.activeElement.id") == "details"
    shown.press("Escape")
    assert shown.page.locator("#details").is_hidden()
    assert tree.evaluate("tree => tree === document.activeElement")


def test_panel_shows_all_that_is_known_of_a_call(show) -> None:
    """Times, fault, error, messages, input, output and events are there as text."""
    told = span(
        0,
        label="writer",
        path="answer/writer",
        execution=2,
        kind="LLMPrimitive",
        status="failed",
        started_at=3601.25,
        ended_at=3663.75,
        input="{'a': <1>}",
        error={"type": "OSError", "message": "503\noverloaded"},
        fault="fail(OSError()) at test_a.py:7",
        events=[event(3602.5, "cache.miss", key="k 1")],
        messages=[
            {"role": "user", "text": "why?"},
            {"role": "assistant", "text": "because"},
        ],
    )
    shown = show(one(told))
    panel = " ".join(shown.page.locator("#details").inner_text().split())
    assert panel == (
        "writer@2 failed Path answer/writer Kind LLMPrimitive Began 1:00:01.250 "
        "Ended 1:01:03.750 Took 1 m 03 s (62.5 s) Task Task-1 "
        "Injected fault fail(OSError()) at test_a.py:7 OSError 503 overloaded "
        "Messages user why? assistant because Input {'a': <1>} "
        "Events 1:00:02.500 cache.miss key k 1"
    )


def test_long_text_is_shown_on_demand(show) -> None:
    """The panel begins with the beginning of a text; a button shows the rest."""
    shown = show(one(span(0, output="start " + "x" * 1_990 + " end")))
    assert "end" not in shown.page.locator(".block .long").inner_text()
    shown.page.get_by_role("button", name="Show 500 more characters").click()
    assert shown.page.locator(".block .long").inner_text().endswith(" end")


def test_faults_retries_and_events_are_marked(show) -> None:
    """Marks stand on the bars at their time, and a backoff is as long as it is."""
    shown = show(
        one(
            span(
                0,
                label="retry",
                ended_at=10.0,
                events=[
                    event(2.0, "retry.scheduled", delay="4.0", attempt="1"),
                    event(8.0, "cache.hit"),
                    event(9.0, "breaker.opened"),
                ],
            ),
            span(
                1,
                0,
                ended_at=2.0,
                fault="fail()",
                events=[event(1.5, "fault.injected")],
            ),
        )
    )
    titles = shown.page.locator(".mark").evaluate_all("m => m.map((x) => x.title)")
    assert titles == [
        "2 s: retry.scheduled",
        "8 s: cache.hit",
        "9 s: breaker.opened",
        "1.5 s: fault.injected",
    ]
    bar, wait = shown.box("#call-0 .bar"), shown.box("#call-0 .wait")
    assert wait["width"] / bar["width"] == pytest.approx(0.4, abs=0.01)
    assert shown.texts("#call-1 .caption") == ["fault"]
    assert shown.texts(".summary") == ["2 calls · 10 s virtual · 1 fault"]


def test_sleeps_are_drawn_and_listed(show) -> None:
    """Waits are a line below the axis, and a table with their places."""
    sleep = {"at": 2.0, "seconds": 4.0, "where": "service.py:12", "task": "Task-9"}
    shown = show(one(span(0, ended_at=8.0), sleeps=[sleep]))
    assert shown.box(".slept")["width"] / shown.box("#call-0 .bar")["width"] == (
        pytest.approx(0.5, abs=0.01)
    )
    shown.click(".sleeps summary")
    assert shown.texts(".sleeps tbody tr") == ["2 s 4 s service.py:12 Task-9"]


def test_only_what_went_wrong(show) -> None:
    """One key leaves the calls that failed and those around them."""
    shown = show(
        one(
            span(0, label="root", ended_at=4.0, status="failed"),
            span(1, 0, label="fine", ended_at=2.0),
            span(2, 0, label="broken", ended_at=3.0, status="failed"),
        )
    )
    shown.page.locator(".tree").focus()
    shown.press("o")
    assert labels(shown) == ["root", "broken"]
    assert shown.texts(".summary") == ["3 calls · 2 shown · 4 s virtual"]
    shown.press("o")
    assert len(labels(shown)) == 3


def test_what_went_wrong_is_selected_at_first(show) -> None:
    """The panel is about the call that a reader looks for."""
    shown = show(example())
    assert shown.picked() == "review"
    assert shown.page.locator("#details h3").inner_text() == "review"


def test_large_run_keeps_few_rows_in_the_page(show) -> None:
    """Of ten thousand calls those that are seen are drawn; all can be reached."""
    shown = show(large(10_000))
    assert shown.texts(".summary") == ["10,000 calls · 1 h 23 m virtual"]
    assert shown.page.evaluate("document.querySelectorAll('*').length") < 3_000
    shown.page.locator(".tree").focus()
    shown.press("End")
    assert shown.picked() == "call-19"
    assert shown.page.locator("#call-9999").is_visible()
    shown.press("Home")
    assert shown.picked() == "batch"
    assert shown.page.evaluate("document.querySelectorAll('*').length") < 3_000


def test_deep_and_strange_trees_are_drawn(show) -> None:
    """Sixty levels leave room for the names; a parent that is not there is none."""
    spans = [span(i, i - 1 if i else None, label=f"level-{i}") for i in range(60)]
    spans[5]["parent"] = 1_000
    shown = show(one(*spans))
    shown.page.locator(".tree").focus()
    shown.press("End")
    assert shown.picked() == "level-59"
    assert shown.page.locator("#call-59").get_attribute("aria-level") == "55"
    assert shown.box("#call-59 .label")["width"] > 30


def test_run_of_no_time_at_all_is_drawn(show) -> None:
    """Nothing is divided by a duration of zero."""
    shown = show(one(span(0, started_at=0.0, ended_at=0.0)))
    assert shown.box("#call-0 .bar")["width"] >= 3
    assert shown.texts(".tick") == ["0 s"]
    assert shown.texts(".summary") == ["1 call · all at one virtual moment"]


def test_run_at_the_end_of_all_time_is_drawn(show) -> None:
    """Where one more is the same number, counting the labels of an axis ends."""
    late = 2.0**60
    shown = show(one(span(0, label="late", started_at=late, ended_at=late + 256)))
    assert labels(shown) == ["late"]
