"""``celeriac -A proj config check``: which of the app's settings have no effect here, and why."""

import sys
from typing import Any

from celeriac import _celeriac, settings, steps

#: What belongs to another program than the worker, or to a backend that Celery itself writes to.
OTHERS = (
    "arangodb_", "azureblockblob_", "beat_", "cassandra_", "cosmosdbsql_", "couchbase_", "database_",
    "dynamodb_", "elasticsearch_", "events_", "gcs_", "mongodb_", "s3_",
)  # fmt: skip
REASONS = {
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


def run(app, arguments: list[str]) -> int:
    """Says what has no effect; the exit code is 0 where all has."""
    if arguments[arguments.index("config") + 1 :] != ["check"]:
        print("Error: the command is config check", file=sys.stderr)
        return 2
    found = settings.of(app)
    try:
        names = sorted(set(_celeriac.without_effect(found)))
    except ValueError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    names = [name for name in names if not name.startswith(OTHERS)]
    for name in names:
        print(f"{name}: {reason(name, found.get(name.partition('.')[0]))}")
    refused = list(steps.refused(app))
    for name, why in refused:
        print(f"the boot step {name}: {why}")
    if names or refused:
        return 1
    print("All settings are honoured.")
    return 0


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
