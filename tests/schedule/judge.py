"""Celery's own schedules as the judge: a question on each line of the input, an answer on each line of the output.

Questions and answers are JSON; times are microseconds since the epoch. What Celery raises is an answer, too:
``{"raised": [name of the exception, words]}``.
"""

from __future__ import annotations

import functools
import json
import sys
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from celery import Celery
from celery.beat import Scheduler
from celery.schedules import crontab, crontab_parser, schedule

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
MICROSECOND = timedelta(microseconds=1)
FIELDS = {
    "minute": (60, 0),
    "hour": (24, 0),
    "day_of_week": (7, 0),
    "day_of_month": (31, 1),
    "month_of_year": (12, 1),
}


@functools.cache
def app(zone: str) -> Celery:
    app = Celery(set_as_current=False)
    app.conf.timezone = zone
    return app


def instant(micros: int, form: str) -> datetime:
    """As an aware datetime of the zone ``form``; ``naive`` is UTC without saying so."""
    moment = EPOCH + micros * MICROSECOND
    return moment.replace(tzinfo=None) if form == "naive" else moment.astimezone(ZoneInfo(form))


def micros(duration: timedelta) -> int:
    return duration // MICROSECOND


def parse(field: str, text: str) -> list[int]:
    return sorted(crontab_parser(*FIELDS[field]).parse(text))


def from_string(text: str) -> str:
    return repr(crontab.from_string(text))


def look(question: dict) -> dict:
    """What the schedule says at ``now``, and the next run after each of ``after``."""
    now = instant(question["now"], question["zone"])
    judged = scheduled(question, lambda: now)
    judged.app.conf.beat_cron_starting_deadline = question.get("deadline")
    last = instant(question["last"], question.get("form") or question["zone"])
    is_due, seconds = judged.is_due(last)
    after = [instant(moment, question["zone"]) for moment in question["after"]]
    next_runs = [question["now"] + micros(judged.remaining_estimate(moment)) for moment in [last, *after]]
    return {"is_due": is_due, "next": seconds, "next_runs": next_runs, "repr": repr(judged)}


def scheduled(question: dict, nowfun) -> schedule | crontab:
    if "every" in question:
        every = question["every"] * MICROSECOND
        return schedule(every, question["relative"], nowfun=nowfun, app=app(question["zone"]))
    return crontab(*question["fields"], nowfun=nowfun, app=app(question["zone"]))


def fires(question: dict) -> list[int]:
    """When it runs, with a clock that goes on to whenever the schedule says that it wants to be asked again."""
    clock = [question["start"]]
    judged = scheduled(question, lambda: instant(clock[0], question["zone"]))
    last, found = clock[0], []
    while clock[0] < question["until"]:
        is_due, seconds = judged.is_due(instant(last, question["zone"]))
        if is_due:
            last = clock[0]
            found.append(last)
        clock[0] += round(seconds * 1_000_000)
    return found


class Witness(Scheduler):
    """Celery's scheduler, which writes down what it would send."""

    producer = None

    def __init__(self, *args, clock: list[int], **kwargs):
        self.clock, self.sent = clock, []
        super().__init__(*args, **kwargs)

    def apply_entry(self, entry, producer=None):
        self.sent.append([entry.name, self.clock[0]])


def ticks(question: dict) -> list[list]:
    """What ``Scheduler.tick`` sends; a millisecond goes by whenever it asks to be called again at once."""
    clock = [question["start"]]
    nowfun = functools.partial(lambda zone: instant(clock[0], zone), question["zone"])
    beat = app(question["zone"])
    beat.conf.result_expires = None
    beat.conf.beat_cron_starting_deadline = question["deadline"]
    beat.conf.beat_schedule = {
        name: {
            "task": "task",
            "schedule": scheduled(entry | {"zone": question["zone"]}, nowfun),
            "last_run_at": instant(entry["last"], question["zone"]),
        }
        for name, entry in question["entries"].items()
    }
    scheduler = Witness(beat, max_interval=question["max_interval"], clock=clock)
    while clock[0] < question["until"]:
        sent = len(scheduler.sent)
        interval = scheduler.tick()
        if interval and interval > 0:
            clock[0] += max(round(interval * 1_000_000), 1)
        elif len(scheduler.sent) == sent:
            clock[0] += 1000
    return scheduler.sent


ANSWERS = {
    "parse": lambda question: parse(question["field"], question["text"]),
    "from_string": lambda question: from_string(question["text"]),
    "look": look,
    "fires": fires,
    "ticks": ticks,
}

for line in sys.stdin:
    question = json.loads(line)
    try:
        answer = {"answer": ANSWERS[question["ask"]](question)}
    except Exception as raised:
        answer = {"raised": [type(raised).__name__, str(raised)]}
    print(json.dumps(answer), flush=False)
