"""Programs that tests start and end: `python -m tests.runtime.programs NAME`."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading

from tta_primitives.runtime import Lifecycle


def say(text: str) -> None:
    """Print a word for the test that watches."""
    print(text, flush=True)  # noqa: T201 - a terminal is where it is watched


async def answers(reader, writer) -> None:
    """Be a host that does nothing but listen."""
    writer.close()


def plain() -> None:
    """Run 20 runs that end when readiness is gone, and a closer."""
    lifecycle = Lifecycle(drain_seconds=20)

    async def run(number):
        """End after the signal has come."""
        with lifecycle.track():
            await lifecycle.until_draining()
            await asyncio.sleep(0.05)
            say(f"ended {number}")

    async def main():
        """Start them, and wait for ever."""
        lifecycle.on_shutdown(lambda: say("closed"))
        for number in range(20):
            lifecycle.spawn(run(number))
        await asyncio.sleep(0)
        say("up")
        try:
            await asyncio.Event().wait()
        finally:
            say(f"main ended with {lifecycle.running} running")

    lifecycle.run(main())
    say(f"stopped by {lifecycle.stopped_by}")


def consumer() -> None:
    """Take one job after the other, each of them whole."""
    lifecycle = Lifecycle(drain_seconds=20)

    async def main():
        """Begin jobs for ever."""
        number = 0
        while True:
            await asyncio.sleep(0.01)  # The next job comes.
            with lifecycle.track():
                number += 1
                say(f"begin {number}.")
                await asyncio.sleep(0.02)
                say(f"end {number}.")

    lifecycle.run(main())
    say("over")


def returning() -> None:
    """End by itself: what runs in the background is not lost."""
    lifecycle = Lifecycle(drain_seconds=20)

    async def later():
        """End after the program."""
        await asyncio.sleep(0.05)
        say("background ended")

    async def main():
        """Return at once."""
        lifecycle.spawn(later())
        return 42

    say(f"returned {lifecycle.run(main())}")


def failing() -> None:
    """Raise; what was opened is closed."""
    lifecycle = Lifecycle(drain_seconds=20)

    async def main():
        """Fail."""
        lifecycle.on_shutdown(lambda: say("closed"))
        raise ValueError("wrong")

    lifecycle.run(main())


def hanging() -> None:
    """Have a thread that never ends and a task that cannot be cancelled."""
    lifecycle = Lifecycle(drain_seconds=0.5)
    logging.basicConfig()

    async def stubborn():
        """Go on."""
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                continue

    async def main():
        """Hang in every way there is."""
        asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
        lifecycle.spawn(stubborn())
        say("up")
        await stubborn()

    lifecycle.run(main())


def default() -> None:
    """Be a plain program that only installs the signals."""
    lifecycle = Lifecycle(drain_seconds=20)

    async def main():
        """Serve until the end."""
        async with lifecycle:
            lifecycle.install_signals()
            lifecycle.on_shutdown(lambda: say("closed"))
            with lifecycle.track():
                say("up")
                await lifecycle.until_draining()
                await asyncio.sleep(0.05)
                say("ended")
            await asyncio.Event().wait()

    asyncio.run(main())


def windows() -> None:
    """Be the plain program on a loop that cannot have handlers of signals."""

    def refuse(*arguments):
        """Do as the loop of Windows does."""
        raise NotImplementedError

    asyncio.SelectorEventLoop.add_signal_handler = refuse
    plain()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
