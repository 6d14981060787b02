"""Who holds what and waits for what, as the report of a deadlock tells it."""

from __future__ import annotations

import asyncio

from pytest_tta.explore.holding import Holding

FIRST, SECOND, GATE = asyncio.Lock(), asyncio.Lock(), asyncio.Semaphore()
TASKS = [
    "  tasks:",
    "    Task-1 in primitive 'x' at test_x.py:4 in x, waiting in TaskGroup.__aexit__",
    "    Task-2 in primitive 'serve' at test_x.py:8 in pay, waiting in Lock.acquire",
    "    Task-3 at test_x.py:9 in ship, waiting in Event.wait",
    "  next timers:",
    "    never: nothing",
]


def holding(**names: str) -> Holding:
    """Return one that knows what tasks are called."""
    made = Holding()
    made.names = {name.replace("_", "-"): called for name, called in names.items()}
    return made


def test_a_lock_that_is_held_and_one_that_is_wanted_have_numbers() -> None:
    """A number for each kind, in the order in which somebody first asked for them."""
    held = holding(Task_1="Task-1 (main)", Task_2="Task-2 (pay)", Task_3="Task-3")
    for permit, task, line in ((FIRST, "Task-2", 7), (GATE, "Task-3", 6)):
        held.asks(permit, task, f"test_x.py:{line} in pay")
        held.got(permit, task, f"test_x.py:{line} in pay")
    held.asks(SECOND, "Task-2", "test_x.py:8 in pay")
    assert held.told(TASKS) == [
        "  tasks:",
        (
            "    Task-2 (pay) holds Lock #1 (test_x.py:7) and waits for Lock #2 "
            "(test_x.py:8)"
        ),
        (
            "    Task-3 holds Semaphore #1 (test_x.py:6), and waits at test_x.py:9 in "
            "ship, in Event.wait"
        ),
        (
            "    Task-1 (main) in primitive 'x' at test_x.py:4 in x, waiting in "
            "TaskGroup.__aexit__"
        ),
        "  next timers:",
        "    never: nothing",
    ]
    assert held.is_told(TASKS)


def test_who_holds_and_does_not_wait_any_more_is_not_told_with_the_tasks() -> None:
    """A task that has ended with a lock is in no line of those that wait."""
    held = holding(Task_2="Task-2 (pay)", Task_9="Task-9 (gone)")
    held.asks(FIRST, "Task-9", "")
    held.got(FIRST, "Task-9", "")
    assert not held.is_told(TASKS)
    assert held.kept([FIRST]) == ["asyncio.Lock, taken by Task-9 (gone)"]


def test_what_is_returned_is_not_held() -> None:
    """By the task that took it, or in the name of another."""
    held = holding()
    for task in ("Task-2", "Task-3"):
        held.asks(GATE, task, "")
        held.got(GATE, task, "")
    held.returned(GATE, "Task-2")
    assert held.kept([GATE]) == ["asyncio.Semaphore, taken by Task-3"]
    held.returned(GATE, "Task-5")
    held.returned(GATE, "Task-5")
    assert held.kept([GATE]) == []


def test_a_wait_that_was_given_up_is_not_told() -> None:
    """What counts is where the error says that a task waits."""
    held = holding(Task_3="Task-3 (ship)")
    held.asks(FIRST, "Task-3", "test_x.py:2 in ship")
    assert held.told(TASKS[3:4]) == [
        "    Task-3 (ship) at test_x.py:9 in ship, waiting in Event.wait"
    ]
