"""The project's tasks."""

import asyncio
import os
import signal
import sys
import time

from celery import Task, shared_task
from celery.exceptions import Ignore, Reject
from celery.utils.log import current_process_index
from django.conf import settings
from django.db import connection


class Misplaced(Exception):
    """The project's own exception."""


class Counting(Task):
    """A Task class of the project's own."""

    calls = 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        return self.run(*args, **kwargs)


@shared_task
def add(x, y):
    return x + y


@shared_task
def total(numbers):
    return sum(numbers)


@shared_task(ignore_result=True)
def note(path, line):
    with open(path, "a") as file:
        file.write(f"{line}\n")


@shared_task
def query():
    """What only a set up Django can say."""
    with connection.cursor() as cursor:
        cursor.execute("select 6 * 7")
        return [cursor.fetchone()[0], settings.INSTALLED_APPS]


@shared_task(bind=True)
def request(self):
    asked = self.request
    return {
        "id": asked.id,
        "hostname": asked.hostname,
        "called_directly": asked.called_directly,
        "routing_key": asked.delivery_info["routing_key"],
        "correlation_id": asked.correlation_id,
        "custom": asked.get("x-custom"),
        "args": asked.argsrepr,
        "pid": os.getpid(),
    }


@shared_task
def place():
    """The process's place in its pool, as names of log files have it."""
    return current_process_index(), os.getpid()


@shared_task(base=Counting, bind=True)
def counted(self):
    return self.calls > 0


@shared_task
def fail(text):
    raise Misplaced(text)


@shared_task(bind=True, max_retries=3)
def flaky(self, failures, pause=0):
    if self.request.retries < failures:
        raise self.retry(exc=KeyError("not yet"), countdown=pause)
    return self.request.retries


@shared_task
def ignored():
    raise Ignore()


@shared_task(acks_late=True)
def rejected(requeue=False):
    raise Reject("not for us", requeue=requeue)


@shared_task(bind=True)
def progress(self):
    self.update_state(state="PROGRESS", meta={"done": 1})
    return self.app.AsyncResult(self.request.id).id


@shared_task(bind=True)
def replace(self, x):
    return self.replace(add.s(x, 1))


@shared_task
def sleep(seconds, text="sleeps"):
    print(text)
    time.sleep(seconds)
    return seconds


@shared_task
def tidy(path, text):
    """Leaves something behind when it is ended."""
    try:
        print(text)
        time.sleep(600)
    finally:
        open(path, "w").close()


@shared_task
def meet(folder, number, others):
    """Waits until so many have come."""
    open(os.path.join(folder, str(number)), "w").close()
    while len(os.listdir(folder)) < others:
        time.sleep(0.01)
    return others


@shared_task
def leave(code):
    sys.exit(code)


@shared_task
def vanish(code):
    os._exit(code)


@shared_task
def die():
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task(acks_late=True, reject_on_worker_lost=True)
def die_once(path):
    """Dies in the first run alone."""
    if not os.path.exists(path):
        open(path, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


@shared_task
def unwritable():
    return object()


@shared_task
def shout(text):
    print(text)


@shared_task
def surrogate():
    return "\ud800"


class Hooked(Task):
    """One that hears of its failures."""

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        append(args[1], f"on_failure {type(exc).__name__} {args[0]}")


def append(path, line):
    with open(path, "a") as file:
        file.write(f"{line}\n")


def exists(path):
    return os.path.exists(path)


@shared_task(base=Hooked)
def hooked(seconds, path):
    time.sleep(seconds)


@shared_task
def noted(request, exc, traceback, path):
    """An errback of the newer kind: it is called in place, by whoever saw the failure."""
    append(path, f"{request.task} {type(exc).__name__}")


@shared_task(acks_late=True)
def late(seconds):
    """A negative number is the signal that it dies of."""
    if seconds < 0:
        os.kill(os.getpid(), -seconds)
    time.sleep(seconds)


@shared_task
def begin(path):
    append(path, "begun")
    time.sleep(60)


@shared_task
def line(path, number, pause):
    time.sleep(pause)
    append(path, number)


@shared_task(acks_late=True, reject_on_worker_lost=True)
def line_late(path, number, pause):
    time.sleep(pause)
    append(path, number)


@shared_task(bind=True)
def progresses(self, path):
    """Says that it is half done, and waits until somebody has seen it."""
    self.update_state(state="PROGRESS", meta={"done": 1})
    deadline = time.monotonic() + 60
    while not os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.005)
    return os.path.exists(path)


@shared_task
def waits_for_another():
    """What Celery forbids."""
    return add.apply_async((1, 2), queue="nobodys").get(timeout=60)


@shared_task
def cancelled():
    raise asyncio.CancelledError("left alone")
