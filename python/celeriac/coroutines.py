"""Tasks that are coroutine functions: each thread that runs tasks has one event loop, which is kept between them.

Celery calls a task's function and stores what it returns; of these tasks a coroutine. Here the function that Celery calls
runs the coroutine to its end. Each run has context variables of its own. The soft limit is raised in the coroutine, where it
waits or where it computes.
"""

import asyncio
import contextvars
import functools
import inspect
import threading
import types
from collections.abc import Coroutine, Mapping
from typing import Any, Optional

from billiard.exceptions import SoftTimeLimitExceeded


class Loops(threading.local):
    """The event loop of a thread, and what runs in it."""

    loop: Optional[asyncio.AbstractEventLoop] = None
    running: Optional["Run"] = None


loops = Loops()


def adopt(tasks: Mapping[str, Any]) -> None:
    """Has the coroutine functions among the tasks run to their results. Tracers are built after this."""
    for task in tasks.values():
        # With `autoretry_for` the function is behind another one (celery/app/autoretry.py).
        name = "_orig_run" if hasattr(task, "_orig_run") else "run"
        if inspect.iscoroutinefunction(getattr(task, name)):
            setattr(task, name, _blocking(getattr(task, name)))


def _blocking(function):
    @functools.wraps(function)
    def run(*args, **kwargs):
        return Run(function(*args, **kwargs)).result()

    # `wraps` would have it taken for the coroutine function itself.
    del run.__wrapped__
    return run


def interrupt() -> bool:
    """The soft limit has passed: whether there is a coroutine that will hear of it where it waits. One that computes is
    interrupted as any function is; what computes beside it, while it waits, is not."""
    run = loops.running
    if run is None or asyncio.current_task(loops.loop) is run.task:
        return False
    run.loop.call_soon_threadsafe(run.interrupt)
    return True


class Run:
    """One coroutine on its way to its result."""

    def __init__(self, coroutine: Coroutine):
        self.coroutine = coroutine
        self.loop = loops.loop or asyncio.new_event_loop()
        self.task: Optional[asyncio.Task] = None
        self.is_interrupted = False
        loops.loop = self.loop

    def result(self) -> Any:
        asyncio.set_event_loop(self.loop)
        loops.running = self
        try:
            return contextvars.copy_context().run(self.run)
        finally:
            loops.running = None
            self.end_others()

    def run(self) -> Any:
        self.task = self.loop.create_task(self.main())
        return self.loop.run_until_complete(self.task)

    async def main(self) -> Any:
        return await self.driven()

    def interrupt(self) -> None:
        self.is_interrupted = True
        self.task.cancel()

    @types.coroutine
    def driven(self):
        """Passes on what the coroutine waits for, and instead of the cancellation that stands for it, the soft limit."""
        step, argument = self.coroutine.send, None
        while True:
            try:
                awaited = step(argument)
            except StopIteration as end:
                return end.value
            try:
                argument = yield awaited
                step = self.coroutine.send
            except asyncio.CancelledError as cancelled:
                step, argument = self.coroutine.throw, cancelled
                if self.is_interrupted:
                    self.is_interrupted, argument = False, SoftTimeLimitExceeded()
            except BaseException as error:
                step, argument = self.coroutine.throw, error

    def end_others(self) -> None:
        """Ends what the coroutine has begun and not waited for, as ``asyncio.run`` does."""
        others = asyncio.all_tasks(self.loop)
        for other in others:
            other.cancel()
        if others:
            self.loop.run_until_complete(asyncio.gather(*others, return_exceptions=True))
