"""A project that writes down which of Celery's signals it hears: where, in which order, from whom, with what."""

import json
import os
import time

from billiard.process import current_process
from celery import Celery, Task, exceptions, signals
from celery.exceptions import Reject

app = Celery("heard", broker=os.environ.get("HEARD_BROKER"), backend=os.environ.get("HEARD_RESULTS"))
app.conf.task_default_queue = os.environ.get("HEARD_QUEUE", "heard")
NAMES = [
    "after_setup_logger", "after_setup_task_logger", "celeryd_after_setup", "celeryd_init", "heartbeat_sent",
    "import_modules", "task_failure", "task_internal_error", "task_postrun", "task_prerun", "task_received",
    "task_rejected", "task_retry", "task_revoked", "task_success", "task_unknown", "worker_before_create_process",
    "worker_init", "worker_process_init", "worker_process_shutdown", "worker_ready", "worker_shutdown",
    "worker_shutting_down",
]  # fmt: skip


def write_down(name):
    def heard(sender=None, signal=None, **given):
        with open(os.environ["HEARD_FILE"], "a") as file:
            # One write, so that processes do not mix their lines.
            file.write(json.dumps([where(), name, shown(sender), sorted(given), told(given)]) + "\n")

    getattr(signals, name).connect(heard, weak=False)


def told(given):
    """What does not differ from run to run."""
    return {name: given[name] for name in ["exitcode", "expired", "how", "sig", "signum", "terminated"] if name in given}


def where():
    return "child" if current_process()._name.startswith("ForkPoolWorker") else "main"


def shown(sender):
    if isinstance(sender, Task):
        return sender.name
    return sender if isinstance(sender, (str, type(None))) else type(sender).__name__


if "HEARD_FILE" in os.environ:
    for name in NAMES:
        write_down(name)


@signals.celeryd_init.connect
def configure(sender, conf, **_):
    # As Celery's documentation has a worker configured by its name.
    if sender == "heard@test":
        conf.result_expires = 77


def wait_for(path):
    def wait(**_):
        while not os.path.exists(path):
            time.sleep(0.01)

    signals.task_received.connect(wait, weak=False)


if "HEARD_WAITS" in os.environ:
    wait_for(os.environ["HEARD_WAITS"])


def leave_by(name, exception, code):
    def leave(**_):
        raise getattr(exceptions, exception)(int(code))

    getattr(signals, name).connect(leave, weak=False)


if "HEARD_LEAVES" in os.environ:
    leave_by(*os.environ["HEARD_LEAVES"].split())


@app.task
def good(x):
    return x


@app.task
def endless():
    time.sleep(600)


@app.task
def failing():
    raise ValueError("bad")


@app.task(bind=True)
def retried(self):
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    return self.request.retries


@app.task(acks_late=True)
def rejected():
    raise Reject("not for us", requeue=False)
