"""``celeriac -A proj config check``: what of the app's settings has no effect here, or stops a worker, and why."""

import difflib
import os
import sys
from collections.abc import Iterator
from typing import Any

from celery.app import defaults

from celeriac import _celeriac, settings, steps, worker
from celeriac.options import UsageError

#: What belongs to another program than the worker, or to a backend that Celery itself writes to.
OTHERS = (
    "arangodb_", "azureblockblob_", "beat_", "cassandra_", "cosmosdbsql_", "couchbase_", "database_",
    "dynamodb_", "elasticsearch_", "events_", "gcs_", "mongodb_", "s3_",
)  # fmt: skip
REASONS = {
    "task_retry_on_worker_lost": "Celery has it from version 5.7 on",
    "worker_agent": "a part of Celery's own worker, which does not run here",
    "worker_autoscaler": "a part of Celery's own worker, which does not run here",
    "worker_consumer": "a part of Celery's own worker, which does not run here",
    "worker_detect_quorum_queues": "a queue is treated as its declaration says",
    "worker_executable": "systemd, or what starts the worker, does this",
    "worker_gid": "systemd, or what starts the worker, does this",
    "worker_lost_wait": "a lost process is known at once",
    "worker_pool_putlocks": "a part of Celery's own worker, which does not run here",
    "worker_pool_start_method": "processes are forked",
    "worker_timer": "a part of Celery's own worker, which does not run here",
    "worker_timer_precision": "a part of Celery's own worker, which does not run here",
    "worker_uid": "systemd, or what starts the worker, does this",
    "worker_umask": "systemd, or what starts the worker, does this",
}
PLAIN = (bool, int, float, str, bytes, type(None))
#: How much alike a name and a setting's are of which it is a slip.
ALIKE = 0.87
#: What wins over the app's settings.
VARIABLES = ("broker_url", "broker_read_url", "broker_write_url")


def run(app, arguments: list[str]) -> int:
    """Says what has no effect; the exit code is 0 where all has."""
    if arguments[arguments.index("config") + 1 :] != ["check"]:
        print("Error: the command is config check", file=sys.stderr)
        return 2
    try:
        found = settings.of(app)
        names = sorted(set(_celeriac.without_effect(found)))
    except ValueError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    names = [name for name in names if not name.startswith(OTHERS)]
    lines = [f"{name}: {reason(name, found.get(name.partition('.')[0]))}" for name in names]
    lines += [f"{name}: no setting has this name; did you mean {meant}?" for name, meant in sorted(misspelt(app))]
    lines += [f"the boot step {name}: {why}" for name, why in steps.refused(app)]
    lines += refused(app, found)
    for line in lines:
        print(line)
    if lines:
        return 1
    print("All settings are honoured.")
    return 0


def refused(app, found: dict[str, Any]) -> Iterator[str]:
    """Why a worker would not start: a pool, a broker or a place for results that is not there."""
    try:
        worker.pool_of(app)
    except UsageError as error:
        yield f"worker_pool: {error}"
    given = {name: url for name in VARIABLES if (url := os.environ.get(f"CELERY_{name.upper()}"))}
    reason = _celeriac.refusal({**found, **given})
    if reason is not None:
        yield reason


def misspelt(app) -> Iterator[tuple[str, str]]:
    """The project's settings that are nearly, and not quite, the name of one; each with that name."""
    prefix = (app.conf.prefix or "").lower()
    old = {name.lower() for names in (defaults._TO_NEW_KEY, defaults._TO_OLD_KEY) for name in names}
    # Django's own is read where there is none of Celery's.
    known = {*defaults.DEFAULTS, *settings.OURS, "time_zone"}
    app.conf.finalize()
    given = {str(key) for table in app.conf.maps[:-1] for key in table.keys()}
    names = {key.lower().removeprefix(prefix) for key in given}
    for key in given:
        name = key.lower()
        if prefix and key.isupper() and not name.startswith(prefix):
            # Another's: all of Django's settings are there.
            continue
        name = name.removeprefix(prefix)
        if name.startswith("_") or name in known or name in old or prefix + name in old:
            continue
        near = difflib.get_close_matches(name, known, 1, ALIKE)
        # RedBeat has settings of its own, and a constant beside the setting is no slip of it.
        if near and not name.startswith("redbeat_") and not near[0].startswith(OTHERS) and near[0] not in names:
            yield key, near[0]


def reason(name: str, value: Any) -> str:
    """Why a setting has no effect."""
    if name in REASONS:
        return REASONS[name]
    if not is_plain(value):
        return "its value is an object that only Python can read"
    return "not supported yet"


def is_plain(value: Any) -> bool:
    """Whether Rust can read a value that :func:`settings.plain` has left."""
    if isinstance(value, dict):
        return all(is_plain(item) for item in value.values())
    if isinstance(value, list):
        return all(is_plain(item) for item in value)
    return isinstance(value, PLAIN)
