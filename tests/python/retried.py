"""A project whose tasks lose their process, and that writes down what becomes of each: its runs, hooks and signals."""

import json
import os
import signal
import sys
import time

from celery import Celery, Task, signals

FOLDER = os.environ.get("RETRIED_FOLDER", "")

app = Celery("retried", broker=os.environ.get("RETRIED_BROKER"), backend=os.environ.get("RETRIED_RESULTS"))
app.conf.update(json.loads(os.environ.get("RETRIED_SETTINGS", "{}")))


def note(task_id, line):
    with open(os.path.join(FOLDER, task_id), "a") as file:
        file.write(f"{line}\n")


def runs(task_id):
    with open(os.path.join(FOLDER, task_id)) as file:
        return sum(line.startswith("run ") for line in file)


class Noting(Task):
    def on_retry(self, exc, task_id, args, kwargs, einfo):
        note(task_id, f"on_retry in run {self.request.retries}: {exc!r} {args} {kwargs}")
        if "is heard of" in kwargs.values():
            raise ValueError("of the hook")

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        note(task_id, f"on_failure: {exc!r}")

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        note(task_id, f"after_return: {status} {retval!r}")


@signals.task_retry.connect
def on_retry(sender, request, reason=None, **_):
    note(request.id, f"task_retry of {sender.name} in run {request.retries}: {reason}")


@signals.task_failure.connect
def on_failure(sender, task_id, exception, **_):
    note(task_id, f"task_failure of {sender.name}: {exception!r}")


@signals.before_task_publish.connect
def on_publication(sender, headers, **_):
    note(headers["id"], f"sends {sender} with {headers['retries']} retries")


def route(name, args, kwargs, options, task=None, **_):
    """Where nothing can be sent to."""
    if "is refused" in (kwargs or {}).values():
        raise ConnectionRefusedError("as was wanted")


app.conf.task_routes = (route,)


def lose(task, deaths, how):
    """Loses the process so many times."""
    note(task.request.id, f"run {task.request.retries}")
    if runs(task.request.id) <= deaths:
        # A stock worker runs anew what is lost before its main process has heard that it began.
        time.sleep(0.2)
        if how == "exits":
            sys.exit(4)
        elif how == "vanishes":
            os._exit(3)
        os.kill(os.getpid(), signal.SIGKILL)
    return task.request.retries


AGAIN = {"base": Noting, "bind": True, "retry_on_worker_lost": True, "default_retry_delay": 0}
LATE = {"acks_late": True, "reject_on_worker_lost": True}


@app.task(base=Noting, bind=True, default_retry_delay=0)
def plain(self, deaths, how="dies"):
    """One that is retried where the project's settings say so."""
    return lose(self, deaths, how)


@app.task(**AGAIN)
def early(self, deaths, how="dies"):
    return lose(self, deaths, how)


@app.task(**AGAIN, **LATE, max_retries=2)
def late(self, deaths, how="dies"):
    return lose(self, deaths, how)


@app.task(**AGAIN, acks_late=True, acks_on_failure=False, max_retries=0)
def once(self, deaths, how="dies"):
    return lose(self, deaths, how)


@app.task(**AGAIN, max_retries=None)
def ever(self, deaths, how="dies"):
    return lose(self, deaths, how)


@app.task(**{**AGAIN, "retry_on_worker_lost": False})
def never(self, deaths, how="dies"):
    return lose(self, deaths, how)


@app.task(**{**AGAIN, **LATE, "default_retry_delay": 3600})
def waits(self, *args, **kwargs):
    """Dies when it is told to."""
    note(self.request.id, f"run {self.request.retries}")
    while not os.path.exists(os.path.join(FOLDER, f"{self.request.id}.told")):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def total(numbers, more=0):
    return sum(numbers) + more


@app.task
def plus(x, y):
    return x + y


@app.task
def noted(task_id, line):
    note(task_id, line)
