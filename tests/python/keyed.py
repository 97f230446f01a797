"""A project whose periodic tasks stand in RedBeat's keys: for stock's beat and ours alike."""

import json
import os

from celery import Celery
from redbeat import RedBeatSchedulerEntry

BROKER = os.environ["KEYED_BROKER"]

app = Celery("keyed", broker=BROKER)
app.conf.update(timezone="Europe/Berlin", result_expires=None, redbeat_redis_url=BROKER)
app.conf.redbeat_lock_timeout = float(os.environ.get("KEYED_LOCK", 30))
app.conf.beat_schedule = json.loads(os.environ.get("KEYED_SCHEDULE", "{}"))


def entry(name, schedule=0.5, **fields):
    """An entry that is due every so many seconds."""
    return RedBeatSchedulerEntry(name, f"task of {name}", schedule, options={"queue": name}, app=app, **fields)


def stored(name):
    return RedBeatSchedulerEntry.from_key(f"redbeat:{name}", app=app)
