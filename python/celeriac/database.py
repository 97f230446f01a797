"""django-celery-beat's tables as the place where beat has its entries and keeps what ran last (``DatabaseScheduler``).

Its own models and its own ``ModelEntry`` read and write the rows, so that what they mean is what they mean there; when they
are due, Rust decides. Two things are otherwise than there. A run is written down before it is sent, and not minutes later;
and it is written with a condition: that the row is as this beat has read it. So any number of beats may work on the same
tables, on any database that Django has: of those that want the same run one gets the row, and the others read it anew.
A beat that is killed between the two leaves out the run; it does not send it twice.
"""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any, Optional

from celery import schedules
from celery.utils.log import get_logger
from celery.utils.time import maybe_make_aware
from django.conf import settings
from django.db import close_old_connections
from django.db.models import F, Q
from django.db.utils import DatabaseError, InterfaceError
from django.utils import timezone as django_timezone
from django_celery_beat.clockedschedule import clocked
from django_celery_beat.models import PeriodicTask, PeriodicTasks
from django_celery_beat.schedulers import ADD_ENTRY_ERROR, ModelEntry

from celeriac.beat import length

logger = get_logger("celery.beat")

EPOCH = datetime.fromtimestamp(0, timezone.utc)
#: After how long all rows are read again though nothing says that they have changed.
FULL_READ = timedelta(minutes=5)


class Row:
    """A row as it was read: the condition under which a run of it may be written."""

    def __init__(self, model: PeriodicTask, app):
        # Reading it as an entry fills in what it has not.
        self.last_run_at = model.last_run_at
        self.total_run_count = model.total_run_count
        self.entry = ModelEntry(model, app=app)
        self.model = model

    def is_over(self, now: datetime) -> bool:
        """Whether it is never due again."""
        model = self.model
        has_expired = model.expires is not None and now >= model.expires
        return has_expired or (model.one_off and model.total_run_count > 0)

    def disable(self) -> None:
        """Disables what is over, as ``ModelEntry.is_due`` does when it is next due."""
        if self.model.one_off and self.model.total_run_count > 0:
            self.model.total_run_count = 0
            self.model.enabled = False
            # This one counts as a change.
            self.model.save()
        else:
            self.entry._disable(self.model)

    def told(self, now: datetime, zone) -> tuple:
        """For Rust: name, schedule, task, arguments, options, the last run and from when on it may be due."""
        entry, start = self.entry, None
        if self.model.start_time is not None and now < self.model.start_time:
            start = micros(self.model.due_start_time(now.tzinfo or zone))
        return (
            (entry.name, told(entry.schedule), entry.task, entry.args, entry.kwargs, entry.options),
            micros(entry.last_run_at), self.total_run_count, start,
        )  # fmt: skip


class DatabaseStore:
    """What Rust asks of the tables. One thread does all that, as a connection of Django's is one thread's."""

    max_interval = 5.0

    def __init__(self, app, only_reads: bool = False):
        self.app = app
        self._only_reads = only_reads
        self._rows: dict[str, Row] = {}
        self._is_stale, self._has_begun = True, False
        self._last_update: Optional[datetime] = None
        self._read_again_at = EPOCH
        self._thread = ThreadPoolExecutor(1, "celeriac-beat-database")

    def changed(self) -> Optional[list[tuple]]:
        """All rows that may be due some time, if they are others than they were."""
        return self._thread.submit(self._changed).result()

    def claim(self, name: str, now: int) -> bool:
        """Writes down that the row runs at that microsecond; says whether it does, and not another beat's."""
        return self._thread.submit(self._claim, name, now).result()

    def entry(self, name: str) -> ModelEntry:
        """What a run of that row sends."""
        return self._rows[name].entry

    def close(self) -> None:
        """Nothing is held that others wait for."""

    def _changed(self) -> Optional[list[tuple]]:
        try:
            close_old_connections()
            if not self._has_begun and not self._only_reads:
                self._upsert()
            self._has_begun = True
            if self._has_changed():
                logger.info("DatabaseScheduler: Schedule changed.")
                self._is_stale = True
            if self._is_stale or datetime.now(timezone.utc) >= self._read_again_at:
                return self._read()
        except (DatabaseError, InterfaceError) as error:
            logger.exception("Database gave error: %r", error)
            self._is_stale = True
        return None

    def _has_changed(self) -> bool:
        last, self._last_update = self._last_update, PeriodicTasks.last_change()
        return last is not None and self._last_update is not None and self._last_update > last

    def _read(self) -> list[tuple]:
        now, rows = self._now(), {}
        for model in PeriodicTask.objects.enabled():
            if self._only_reads:
                # ModelEntry disables what it cannot read.
                model.save = lambda *_, **__: None
            try:
                row = Row(model, self.app)
            except ValueError:
                # What ModelEntry cannot read, it has said.
                continue
            except (DatabaseError, InterfaceError):
                raise
            except Exception as error:
                logger.exception("The row %s is left out: %r", model.name, error)
                continue
            if not row.is_over(now):
                if model.enabled:
                    rows[model.name] = row
            elif not self._only_reads:
                row.disable()
        self._rows = rows
        ends = [maybe_make_aware(row.model.expires) for row in rows.values() if row.model.expires is not None]
        self._read_again_at = min([datetime.now(timezone.utc) + FULL_READ, *ends])
        changed = [told for row in rows.values() if (told := self._told(row, now)) is not None]
        # Not before: what could not be told is to be told anew.
        self._is_stale = False
        return changed

    def _told(self, row: Row, now: datetime) -> Optional[tuple]:
        """The row for Rust; none, if that cannot be said, which hinders no other."""
        try:
            return row.told(now, self.app.timezone)
        except (DatabaseError, InterfaceError):
            raise
        except Exception as error:
            logger.exception("The row %s is left out: %r", row.model.name, error)
            return None

    def _claim(self, name: str, now: int) -> bool:
        row = self._rows.get(name)
        if row is None:
            return False
        was_stale, self._is_stale = self._is_stale, True
        try:
            moment = self._moment(now)
            found = PeriodicTask.objects.filter(
                Q(expires__isnull=True) | Q(expires__gt=moment), pk=row.model.pk, enabled=True,
                last_run_at=row.last_run_at, total_run_count=row.total_run_count,
            )  # fmt: skip
            changes = {"last_run_at": moment, "date_changed": django_timezone.now()}
            if not found.update(total_run_count=F("total_run_count") + 1, **changes):
                return False
        except (DatabaseError, InterfaceError) as error:
            logger.exception("Database gave error: %r", error)
            # What can be read and not written would be due again at once.
            self._is_stale = False
            self._read_again_at = datetime.now(timezone.utc) + timedelta(seconds=self.max_interval)
            return False
        row.last_run_at, row.total_run_count = moment, row.total_run_count + 1
        # What runs once is over.
        self._is_stale = was_stale or row.model.one_off
        return True

    def _upsert(self) -> None:
        """Writes the entries of the settings into the tables (``DatabaseScheduler.setup_schedule``)."""
        conf, entries = self.app.conf, {}
        if conf.result_expires:
            entries["celery.backend_cleanup"] = {
                "task": "celery.backend_cleanup",
                "schedule": schedules.crontab("0", "4", "*"),
                "options": {"expire_seconds": 12 * 3600},
            }
        for name, fields in [*entries.items(), *conf.beat_schedule.items()]:
            try:
                ModelEntry.from_entry(name, app=self.app, **fields)
            except (DatabaseError, InterfaceError):
                raise
            except Exception as error:
                logger.exception(ADD_ENTRY_ERROR, name, error, fields)

    def _now(self) -> datetime:
        return self._moment(micros(datetime.now(timezone.utc)))

    def _moment(self, microseconds: int) -> datetime:
        """That microsecond, as ``ModelEntry`` would have it in the tables."""
        moment = EPOCH + timedelta(microseconds=microseconds)
        if getattr(settings, "DJANGO_CELERY_BEAT_TZ_AWARE", True):
            return moment.astimezone(self.app.timezone)
        return moment.replace(tzinfo=None)


def micros(moment: datetime) -> int:
    """Microseconds since 1970; what has no zone is in UTC, as ``ModelEntry`` takes it."""
    return (maybe_make_aware(moment) - EPOCH) // timedelta(microseconds=1)


def told(schedule: Any) -> tuple:
    """A row's schedule, for Rust."""
    if isinstance(schedule, clocked):
        return ("clocked", micros(schedule.clocked_time))
    if isinstance(schedule, schedules.crontab):
        fields = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")
        return ("crontab", *(getattr(schedule, f"_orig_{field}") for field in fields), str(schedule.tz))
    if isinstance(schedule, schedules.solar):
        return ("solar", schedule.event, float(schedule.lat), float(schedule.lon))
    return ("interval", length(schedule.run_every), bool(schedule.relative))
