"""Tasks with hooks that look at what has been stored, or end their process."""

import os
import signal

from celery import Task, shared_task
from celery.result import AsyncResult

from .tasks import append


class Looking(Task):
    """Writes down what is stored when its hooks are called."""

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        append(args[0], f"on_failure {self.AsyncResult(task_id).state}")

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        append(args[0], f"after_return {self.AsyncResult(task_id).state}")


class Dying(Task):
    """Its process does not survive its success."""

    def on_success(self, retval, task_id, args, kwargs):
        os.kill(os.getpid(), signal.SIGKILL)


@shared_task(base=Looking)
def looks(path, fails):
    if fails:
        raise KeyError("as was wanted")


@shared_task
def seen(request, exc, traceback, path):
    """An errback of the newer kind, which is called in place."""
    append(path, f"errback {AsyncResult(request.id).state}")


@shared_task(base=Dying, acks_late=True, reject_on_worker_lost=True)
def dies(path):
    append(path, "run")
    return "done"
