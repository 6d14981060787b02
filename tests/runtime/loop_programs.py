"""Programs that tests run in processes of their own: forks and ends of processes."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
import warnings

from tta_primitives.loops import running_loop
from tta_primitives.runtime import loop_thread


def say(*words: object) -> None:
    """Print at once, also where the process then ends hard."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def facts() -> str:
    """Return whether the loop that is found is the one that runs."""
    await asyncio.sleep(0)
    here = running_loop() is asyncio.get_running_loop()
    return f"here={here} pid={os.getpid()}"


async def late(text: str) -> None:
    """Do work that takes a while, and needs a thread of the loop's pool."""
    await asyncio.sleep(0.2)
    await asyncio.to_thread(say, text)


def in_child(function) -> int:
    """Fork, call a function in the child, and return its exit code."""
    # From 3.12 on it warns of the very thing that is tested here.
    warnings.simplefilter("ignore", DeprecationWarning)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = function() or 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fork() -> None:
    """Use the loop before and after a fork, in parent and child."""
    parents = loop_thread().loop
    held = threading.Event()

    async def heartbeat() -> None:
        held.set()
        while True:
            await asyncio.sleep(0.01)

    beats = loop_thread().submit(heartbeat())
    held.wait()

    def child() -> None:
        say("child:", loop_thread().run(facts(), timeout=10))
        say("fresh:", loop_thread().loop is not parents)
        say("again:", in_child(lambda: say(loop_thread().run(facts(), timeout=10))))

    say("exit:", in_child(child))
    say("parent:", loop_thread().run(facts(), timeout=10))
    say("same:", loop_thread().loop is parents)
    beats.cancel()


def fork_in_the_middle() -> None:
    """Fork many times while other threads use the loop."""
    stop = threading.Event()

    def use() -> None:
        while not stop.is_set():
            loop_thread().run(facts())

    users = [threading.Thread(target=use) for _ in range(4)]
    for user in users:
        user.start()
    codes = [
        in_child(lambda: loop_thread().run(facts(), timeout=10) and None)
        for _ in range(20)
    ]
    stop.set()
    for user in users:
        user.join()
    say(codes)


def exit_normally() -> None:
    """End while submitted work is under way."""
    loop_thread().submit(late("done"))


def exit_by_signal() -> None:
    """End as servers do: the handler of SIGTERM raises SystemExit."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    loop_thread().submit(late("done"))
    say("ready")
    threading.Event().wait()


def exit_of_a_child() -> None:
    """End a process of multiprocessing while submitted work is under way."""
    child = multiprocessing.get_context("fork").Process(target=exit_normally)
    loop_thread().run(facts())
    child.start()
    child.join()
    say("code:", child.exitcode)


def exit_beside_a_hang() -> None:
    """End beside work that does not, within the time to drain."""
    loop_thread().drain_seconds = 0.2

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            say("cleaned")

    loop_thread().submit(forever())
    loop_thread().run(facts())


if __name__ == "__main__":
    globals()[sys.argv[1]]()
