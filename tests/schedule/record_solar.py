"""Writes ``solar.txt``: what Celery's ``solar`` answers with ``ephem``, at random places and times.

    pip install celery==5.7.0 ephem==4.2.1
    python record_solar.py [COUNT] >solar.txt

A line: event, latitude, longitude, last run and next run, both in microseconds since the epoch.
"""

from __future__ import annotations

import random
import sys
from datetime import datetime, timedelta, timezone

from celery import Celery
from celery.schedules import solar

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
MICROSECOND = timedelta(microseconds=1)
FROM, UNTIL = (datetime(year, 1, 1, tzinfo=timezone.utc) for year in (2000, 2050))
SEED = 20261128

app = Celery(set_as_current=False)
app.conf.timezone = "UTC"
rng = random.Random(SEED)
events = sorted(solar._all_events)
for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else 1200):
    event = events[number % len(events)]
    # Mostly where people live; the poles and what is near them are asked, too.
    latitude = rng.choice([rng.uniform(-60, 60)] * 7 + [rng.uniform(-90, 90)] * 2 + [rng.choice([-90.0, 90.0, 0.0])])
    latitude, longitude = round(latitude, 4), round(rng.uniform(-180, 180), 4)
    last = FROM + timedelta(seconds=rng.randrange(int((UNTIL - FROM).total_seconds())))
    schedule = solar(event, latitude, longitude, nowfun=lambda: last, app=app)
    found = last + schedule.remaining_estimate(last)
    print(event, latitude, longitude, (last - EPOCH) // MICROSECOND, (found - EPOCH) // MICROSECOND)
