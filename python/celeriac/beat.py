"""Beat's side in Python: which entries there are, what some schedules say, and how a task is sent.

Rust decides when an entry is due, and keeps when each ran. What is sent goes through ``Scheduler.apply_entry`` of Celery, so
that whatever listens to that, or has replaced it, or listens to what a producer does, goes on doing so.
"""

import json
import os
import signal
import sys
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, Optional

from celery import beat, platforms, schedules, signals
from celery.utils.log import LOG_LEVELS, get_logger
from kombu.exceptions import OperationalError

from celeriac import _celeriac, shelved, stores
from celeriac.options import Options

logger = get_logger("celery.beat")

EPOCH = datetime.fromtimestamp(0, timezone.utc)
#: The longest interval that can be told, in microseconds: 292,000 years.
LONGEST = 2**63 - 1
CRON_FIELDS = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")


class Scheduler(beat.Scheduler):
    """The entries of the settings, and what sends them; when, is not for this one to say."""

    #: What the last entry came to: the result, or why it could not be sent.
    sent: Any = None
    #: What RedBeat's listener to ``beat_init`` looks at, whichever scheduler there is; the lock is not its to take.
    lock_key = None

    def setup_schedule(self) -> None:
        # In the order of PersistentScheduler: the other one of Celery's loses its default entries again.
        self.merge_inplace(self.app.conf.beat_schedule)
        self.install_default_entries(self.schedule)

    def apply_async(self, entry, producer=None, advance=True, **kwargs):
        try:
            self.sent = super().apply_async(entry, producer=producer, advance=False, **kwargs)
        except Exception as error:
            self.sent = error
            raise
        return self.sent

    def should_sync(self) -> bool:
        return False


class Service(beat.Service):
    """What stands for Celery's service where a signal needs one."""

    def get_scheduler(self, lazy=False, extension_namespace="celery.beat_schedulers"):
        return Scheduler(self.app, max_interval=self.max_interval, lazy=lazy)


class Beating:
    """What is to be sent, for Rust."""

    def __init__(self, app, scheduler: str, service: Service, store: Any = None, is_dry_run: bool = False):
        self.app = app
        self.is_dry_run = is_dry_run
        #: What has the entries and keeps when each ran, if Python has that.
        self.store = store
        #: The full name of what keeps when each ran.
        self.scheduler = scheduler
        self.service = service
        #: For a dry run: what a start would take over from Celery's beat.
        self.taken_over: Optional[dict[str, shelved.Run]] = None
        #: Whether something is being sent.
        self.is_busy = False

    def entries(self) -> list[tuple[str, tuple, str, Any, Any, Any]]:
        schedule = {} if self.store else self.service.scheduler.schedule
        entries = []
        for name, entry in schedule.items():
            if not isinstance(entry.task, str) or entry.schedule is None:
                # It hinders no other.
                what = "schedule" if entry.schedule is None else "task"
                self.tell("The entry %s has no %s, and is left out", name, what)
                continue
            # As they are: what is no list or no mapping is Celery's to refuse, when the entry is due.
            entries.append((name, told(entry.schedule), entry.task, entry.args, entry.kwargs, entry.options))
        return entries

    def leave_out(self, entry: tuple, error: Exception) -> None:
        """Tells of one of these that Rust cannot read."""
        self.tell("The entry %s is left out: %s", entry[0], error)

    def tell(self, message: str, *given: Any) -> None:
        """Tells what is wrong with the entries; a dry run has no log."""
        if self.is_dry_run:
            print(f"Warning: {message % given}", file=sys.stderr)
        else:
            logger.error(f"beat: {message}", *given)

    def kept(self) -> Optional[list[tuple[str, int, int]]]:
        """For a dry run: each entry that ran under Celery's beat, at which microsecond it did so last, and how often."""
        if self.taken_over is None:
            return None
        return [(name, microsecond(last), count) for name, (last, count) in self.taken_over.items()]

    def is_due(self, name: str, last_run_at: int) -> tuple[bool, Optional[float]]:
        """Asks a schedule of the project's own when it ran last at that microsecond; some do not say when to ask again."""
        entry = self.store.entry(name) if self.store else self.service.scheduler.schedule[name]
        entry.last_run_at = (EPOCH + timedelta(microseconds=last_run_at)).astimezone(self.app.timezone)
        is_due, after = entry.is_due()
        return bool(is_due), after

    def send(self, name: Optional[str], task: str, given: str) -> str:
        """Sends the entry of that name, or else the task that is given; returns its id."""
        scheduler, signature = self.service.scheduler, json.loads(given)
        entry = self.store.entry(name) if self.store else scheduler.schedule.get(name)
        if entry is None:
            entry = scheduler.Entry(
                name=name or task, task=task, schedule=0, args=signature["args"], kwargs=signature["kwargs"],
                options=signature["options"], app=self.app,
            )  # fmt: skip
        elif "task_id" in signature["options"] and isinstance(entry.options, Mapping):
            options = {**entry.options, "task_id": signature["options"]["task_id"]}
            entry = scheduler.Entry(**{**dict(entry), "options": options})
        scheduler.sent, self.is_busy = None, True
        try:
            scheduler.apply_entry(entry, producer=self.producer(entry))
        finally:
            self.is_busy = False
        entry.total_run_count += 1
        if isinstance(scheduler.sent, Exception):
            cause = scheduler.sent.__cause__ or scheduler.sent.__context__
            # What a task or a receiver raised is its own: Celery's producer says so of a broker that is away.
            if isinstance(cause, OperationalError):
                raise ConnectionError(str(cause))
            raise scheduler.sent
        return str(getattr(scheduler.sent, "id", ""))

    def producer(self, entry):
        """Celery's, once the broker is there."""
        try:
            return self.service.scheduler.producer
        except Exception as error:
            logger.error("Message Error: Couldn't apply scheduled task %s: %s", entry.name, error)
            raise ConnectionError(str(error)) from error


def length(interval: timedelta) -> int:
    """An interval as Rust has it, in microseconds; those that its numbers do not hold are beyond the calendar as well."""
    return max(-LONGEST, min(interval // timedelta(microseconds=1), LONGEST))


def cronspec(schedule: schedules.crontab, field: str) -> Any:
    """What was given for a field of a crontab; where that can be read only once, what Celery has read."""
    given = getattr(schedule, f"_orig_{field}")
    return given if isinstance(given, (str, int, list, tuple, set)) else sorted(getattr(schedule, field))


def microsecond(time: datetime) -> int:
    """An instant as Rust has it."""
    return (time - EPOCH) // timedelta(microseconds=1)


def told(schedule) -> tuple:
    """A schedule of Celery's for Rust; any other is asked when it may be due, and so is what Celery cannot count with."""
    if getattr(schedule, "nowfun", None) is not None:
        return ("asked",)
    if type(schedule) is schedules.schedule and isinstance(schedule.run_every, timedelta):
        return ("interval", length(schedule.run_every), bool(schedule.relative))
    if type(schedule) is schedules.crontab:
        return ("crontab", *(cronspec(schedule, field) for field in CRON_FIELDS))
    if type(schedule) is schedules.solar:
        return ("solar", schedule.event, float(schedule.lat), float(schedule.lon))
    return ("asked",)


class Preparation:
    """Readies one beat; ``embedded``: it is a worker's."""

    def __init__(self, app, options: Options, embedded: bool = False):
        self.app = app
        self.options = options
        self.embedded = embedded
        self.beating: Optional[Beating] = None

    def leaves_threads(self) -> bool:
        """Whether something is still being sent, to a broker that is away."""
        return self.beating is not None and self.beating.is_busy

    def begin(self, **start) -> Any:
        """What is to be sent, or the exit code of Celery's own beat, which runs here if nothing of ours can do it."""
        full, make = stores.choose(start["scheduler"])
        if not self.embedded and not start["dry_run"]:
            self.become_daemon(start)
        self.app.loader.init_worker()
        self.app.finalize()
        if not stores.is_ours(full):
            return self.run_celerys(full, start)
        service = Service(self.app, max_interval=start["max_interval"], schedule_filename=start["schedule_filename"])
        if not start["dry_run"]:
            self.set_up_log(start)
            signals.beat_init.send(sender=service)
            if self.embedded:
                signals.beat_embedded_init.send(sender=service)
            platforms.set_process_title("celery beat", info=" ".join(sys.argv[1:]))
            shelved.take_over(self.app, full, start["schedule_filename"])
        store = make(self.app, start["dry_run"], start["max_interval"]) if make else None
        self.beating = Beating(self.app, full, service, store, start["dry_run"])
        if start["dry_run"]:
            try:
                self.beating.taken_over = shelved.found(self.app, full, start["schedule_filename"])
            except shelved.NotTakenOver as reason:
                print(f"Warning: {reason}", file=sys.stderr)
        return self.beating

    def become_daemon(self, start: dict[str, Any]) -> None:
        """Leaves the terminal or the user behind, where that is wanted (celery/bin/beat.py)."""
        conf, options = self.app.conf, self.options
        uid, gid = options.uid or conf.get("beat_uid"), options.gid or conf.get("beat_gid")
        if options.detach:
            umask = options.umask or conf.get("beat_umask")
            platforms.detached(start["logfile"], start["pidfile"], uid, gid, umask, os.getcwd()).open()
        else:
            platforms.maybe_drop_privileges(uid=uid, gid=gid)

    def set_up_log(self, start: dict[str, Any]) -> None:
        conf = self.app.conf
        self.app.log.setup(
            LOG_LEVELS[start["loglevel"]], start["logfile"], conf.worker_redirect_stdouts and not self.embedded,
            conf.worker_redirect_stdouts_level, colorize=False if start["no_color"] else None,
        )  # fmt: skip

    def run_celerys(self, scheduler: str, start: dict[str, Any]) -> int:
        """Runs Celery's own beat, in this process, with a scheduler that only that can run."""
        if start["dry_run"]:
            print(f"Error: only Celery's own beat knows what {scheduler} does", file=sys.stderr)
            return 1
        celerys = self.app.Beat(
            max_interval=start["max_interval"], pidfile=start["pidfile"], no_color=start["no_color"] or None,
            loglevel=start["loglevel"], logfile=start["logfile"], schedule=start["schedule_filename"],
            scheduler=scheduler, quiet=start["quiet"] or self.embedded,
        )  # fmt: skip
        celerys.setup_logging()
        logger.warning("beat: The scheduler %s runs in Celery's own beat: Celeriac has nothing in its place", scheduler)
        try:
            celerys.run()
        except SystemExit as exit:
            return exit.code if isinstance(exit.code, int) else 0
        return 0


def serve(app, options: Options, loglevel: str, logfile: Optional[str], no_color: bool) -> int:
    """Is the beat of a worker, in a process of its own; returns its exit code."""
    from celeriac import settings, worker

    for name in ("SIGQUIT", "SIGHUP", "SIGUSR1", "SIGCHLD"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    words = [*(["--no-color"] if no_color else []), "--quiet", "beat", "--loglevel", loglevel]
    # Nothing but the worker's command line says where it logs, and it holds the pidfile itself.
    words += [f"--logfile={logfile or ''}", "--pidfile="]
    words += [f"--schedule={options.schedule}"] if options.schedule else []
    words += [f"--scheduler={options.scheduler}"] if options.scheduler else []
    preparation = Preparation(app, options, embedded=True)
    return _celeriac.run(
        ["celeriac", *words],
        f"{app.main or '__main__'}:{hex(id(app))}",
        "prefork",
        worker.default_concurrency(),
        settings.of(app),
        lambda with_defaults: settings.told(app, with_defaults),
        lambda *_: None,
        preparation.begin,
    )
