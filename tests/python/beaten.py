"""A project with periodic tasks, of which the environment says all: for stock's beat and ours alike."""

import ctypes
import json
import os
import signal
import time
from datetime import timedelta

from celery import Celery, signals
from celery.beat import BeatLazyFunc, Scheduler
from celery.schedules import crontab, schedule

if os.environ.get("BEATEN_SENTRY"):
    import sentry_sdk
    from sentry_sdk.integrations.celery import CeleryIntegration

    sentry_sdk.init("http://key@127.0.0.1:9/1", integrations=[CeleryIntegration(monitor_beat_tasks=True)], shutdown_timeout=0)

app = Celery("beaten", broker=os.environ["BEATEN_BROKER"], backend=os.environ.get("BEATEN_RESULTS"))
app.conf.update(
    task_default_queue=os.environ["BEATEN_QUEUE"],
    timezone=os.environ.get("BEATEN_ZONE") or "Europe/Berlin",
    **json.loads(os.environ.get("BEATEN_SETTINGS", "{}")),
)


class Half(schedule):
    """A schedule of the project's own: due after half of its interval."""

    def is_due(self, last_run_at):
        gone = (self.now() - last_run_at).total_seconds()
        half = self.seconds / 2
        return (True, half) if gone >= half else (False, half - gone)


class Silent(schedule):
    """Never says when to ask again; every fourth time it is due."""

    asked = 0

    def is_due(self, last_run_at):
        self.asked += 1
        return (self.asked % 4 == 0, None)


#: The schedules that a test can name.
SCHEDULES = {
    "second": 1.0,
    "two": timedelta(seconds=2),
    "half": Half(2),
    "minutely": crontab(),
    "yearly": crontab(minute=0, hour=0, day_of_month=1, month_of_year=1),
    "nightly": crontab(minute="30", hour="4"),
    "hour": 3600,
    "silent": Silent(1),
    "never": timedelta.max,
    "empty": crontab(minute=[]),
    "read once": crontab(minute=(minute for minute in range(60))),
}


def twice(word):
    """What is given to a lazy entry; for one word it fails as what looks for a file does."""
    return open(word) if word == "/nowhere" else word * 2


def entry(given):
    given = dict(given, schedule=SCHEDULES.get(given["schedule"], given["schedule"]))
    if "lazy" in given:
        given["args"] = (BeatLazyFunc(twice, given.pop("lazy")),)
    return given


app.conf.beat_schedule = {
    name: entry(given) for name, given in json.loads(os.environ.get("BEATEN_SCHEDULE", "{}")).items()
}


@app.on_after_finalize.connect
def add(sender, **kwargs):
    if os.environ.get("BEATEN_ADDED"):
        sender.add_periodic_task(1.0, note.s("added"), name="added", expires=30)


@app.task(bind=True)
def note(self, *words):
    headers = dict(self.request.headers or {})
    with open(os.environ["BEATEN_LOG"], "a") as log:
        log.write(json.dumps({"words": words, "id": self.request.id, "beat": headers.get("celery_beat_task")}) + "\n")


@app.task
def fork():
    """Leaves a process that outlives its task, and holds whatever Python does not close in it."""
    rest(os.fork())


def rest(pid):
    if pid == 0:
        signal.pause()
    with open(os.environ["BEATEN_FORKED"], "w") as forked:
        forked.write(f"{pid}\n")


if os.environ.get("BEATEN_FORKS_BARE"):
    # As what is no Python's forks: nothing is closed in it.
    signals.beat_embedded_init.connect(lambda **_: rest(ctypes.PyDLL(None).fork()), weak=False)

while os.path.exists(os.environ.get("BEATEN_HELD", "")):
    time.sleep(0.01)


def tell(name):
    def told(sender=None, **kwargs):
        print(f"signal {name} of {type(sender).__mro__[-2].__name__}", flush=True)

    return told


for name in ("beat_init", "beat_embedded_init"):
    getattr(signals, name).connect(tell(name), weak=False)


@signals.before_task_publish.connect
def publish(sender=None, headers=None, **kwargs):
    print(f"publishes {sender}", flush=True)
    headers["published"] = True


class Own(Scheduler):
    """A scheduler that only Celery's own beat can run."""

    def apply_entry(self, entry, producer=None):
        print(f"own scheduler applies {entry.name}", flush=True)
        return super().apply_entry(entry, producer)
