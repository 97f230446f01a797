"""Tasks that are coroutine functions."""

import asyncio
import contextvars
import os
import time

from billiard.exceptions import SoftTimeLimitExceeded
from celery import shared_task

seen = contextvars.ContextVar("seen", default=None)


@shared_task
async def add_later(x, y):
    await asyncio.sleep(0.01)
    return x + y


@shared_task(bind=True)
async def about(self, text):
    """What is the same from one task to the next: the process and its loop, and not the context."""
    before = seen.get()
    seen.set(text)
    await asyncio.sleep(0)
    return {"id": self.request.id, "pid": os.getpid(), "loop": id(asyncio.get_running_loop()), "before": before}


@shared_task(bind=True, autoretry_for=(KeyError,), max_retries=2, retry_backoff=False, default_retry_delay=0)
async def flaky_later(self):
    await asyncio.sleep(0)
    if self.request.retries < 1:
        raise KeyError("not yet")
    return self.request.retries


@shared_task
async def patient(seconds, computes=False):
    """Catches its limit where it waits, or where it computes."""
    try:
        if computes:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                pass
        else:
            await asyncio.gather(asyncio.sleep(seconds), asyncio.sleep(seconds))
    except SoftTimeLimitExceeded:
        return "limited"
    return "not limited"


@shared_task
async def delegating(seconds):
    """Waits while a task of its own computes."""

    async def compute():
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pass

    helper = asyncio.create_task(compute())
    try:
        await asyncio.sleep(60)
    except SoftTimeLimitExceeded:
        return "limited"
    finally:
        # What it was not told has not harmed it.
        await helper
    return "not limited"


@shared_task
async def overlong(seconds):
    await asyncio.sleep(seconds)
