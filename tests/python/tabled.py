"""A project whose periodic tasks stand in django-celery-beat's tables: for stock's beat and ours alike."""

import json
import os

import django
from celery import Celery
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["django_celery_beat"],
    DATABASES={"default": json.loads(os.environ["TABLED_DATABASE"])},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    TIME_ZONE="Europe/Berlin",
    USE_TZ=True,
)
django.setup()

app = Celery("tabled", broker=os.environ["TABLED_BROKER"])
app.conf.update(timezone="Europe/Berlin", beat_scheduler="django", result_expires=None)
app.conf.beat_schedule = json.loads(os.environ.get("TABLED_SCHEDULE", "{}"))


def interval(name, microseconds, **fields):
    """A row that is due every so many microseconds."""
    from django_celery_beat.models import IntervalSchedule, PeriodicTask

    schedule, _ = IntervalSchedule.objects.get_or_create(every=microseconds, period="microseconds")
    return PeriodicTask.objects.create(name=name, task=f"task of {name}", interval=schedule, queue=name, **fields)
