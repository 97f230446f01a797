"""What Celery's own beat wrote down in its file (``PersistentScheduler``), taken over once, where ours is not there yet.

Celery's is a ``shelve`` of pickled entries, in any of the forms that ``dbm`` has, and stays as it is: who goes back to
Celery's beat finds it as it was left. Ours is written here as ``src/beat/schedule_file.rs`` reads it.
"""

import json
import os
import shelve
from dbm import whichdb
from datetime import datetime, timezone
from typing import Any, Optional

from celery.utils.log import get_logger
from celery.utils.time import maybe_make_aware

from celeriac import settings

logger = get_logger("celery.beat")

#: The class whose file it is, with a dot for the colon.
SCHEDULER = "celery.beat.PersistentScheduler"
#: What the name of our file ends in.
SUFFIX = ".celeriac.json"
#: What that of its lock adds.
LOCK = ".lock"


#: When an entry ran last, in UTC, and how often it ran.
Run = tuple[datetime, int]


class NotTakenOver(Exception):
    """Why there is a file of Celery's, and nothing of it is taken over."""


def take_over(app, scheduler: str, filename: str) -> None:
    """Has the entries go on from their last runs under Celery's beat. What cannot be read is told of, and they count as run
    just now."""
    try:
        runs = found(app, scheduler, filename)
    except NotTakenOver as reason:
        return logger.warning("beat: %s", reason)
    if runs is None:
        return
    conf = app.conf
    zone = settings.zone(app)
    entries = {
        name: {"last_run_at": f"{last:%Y-%m-%dT%H:%M:%S.%fZ}", "total_run_count": count}
        for name, (last, count) in runs.items()
    }  # fmt: skip
    content = {"celeriac-beat": 1, "timezone": zone, "enable_utc": bool(conf.enable_utc), "entries": entries}
    try:
        write(filename + SUFFIX, content)
    except FileExistsError:
        # Another beat was faster.
        return
    except OSError as error:
        return logger.error("beat: Cannot take over what is kept in %s: %s", filename, error)
    logger.info("beat: Took over when %d entries ran last from Celery's schedule file %s", len(entries), filename)


def found(app, scheduler: str, filename: str) -> Optional[dict[str, Run]]:
    """The last runs that a start takes over, each by its entry's name; ``None``: there are none. Nothing is written."""
    ours = filename + SUFFIX
    # The lock stays where our file is removed: Celery's is out of date by then.
    if scheduler.replace(":", ".", 1) != SCHEDULER or os.path.exists(ours) or os.path.exists(ours + LOCK):
        return None
    if whichdb(filename) is None:
        return None
    try:
        with shelve.open(filename, flag="r") as theirs:
            stored = {name: theirs.get(name) for name in ("entries", "tz", "utc_enabled")}
        runs = {name: run(entry) for name, entry in (stored["entries"] or {}).items()}
    except Exception as error:
        raise NotTakenOver(
            f"Celery's schedule file {filename} cannot be read: all entries count as run just now. {error!r}"
        ) from error
    for name, setting in (("tz", app.conf.timezone), ("utc_enabled", app.conf.enable_utc)):
        # As Celery has it.
        if stored[name] is not None and stored[name] != setting:
            raise NotTakenOver(
                f"Celery's schedule file {filename} is of other settings ({name} {stored[name]!r}, now {setting!r}): all "
                "entries count as run just now"
            )
    return runs


def run(entry) -> Run:
    """An entry's last run."""
    # What has no zone is in UTC.
    return maybe_make_aware(entry.last_run_at).astimezone(timezone.utc), int(entry.total_run_count or 0)


def write(name: str, content: dict[str, Any]) -> None:
    """Writes a new file, which is there as a whole or not at all."""
    temporary = f"{name}.{os.getpid()}.new"
    try:
        with open(temporary, "w") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        # Unlike a rename it replaces nothing.
        os.link(temporary, name)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
