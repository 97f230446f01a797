"""Python tasks with results in databases and files, and with what only Python can read: whatever becomes of a task, its
client is told the same as by a stock worker."""

import contextlib
import functools
import json
import os
import re
import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from support import SECONDS, Process, run
from test_prefork import HERE, Celeriac, environment

pytestmark = pytest.mark.only("redis", "what is stored does not depend on the broker")

PICKLED = {
    "CELERY_TASK_SERIALIZER": "pickle", "CELERY_RESULT_SERIALIZER": "pickle",
    "CELERY_ACCEPT_CONTENT": ["json", "pickle"],
}


def settings(backend, folder):
    """The project's settings for a backend whose files are in that folder."""
    return {
        "django-db": {
            "INSTALLED_APPS": ["shelf", "django_celery_results"], "CELERY_RESULT_BACKEND": "django-db",
            "DATABASES": {"default": {
                "ENGINE": "django.db.backends.sqlite3", "NAME": f"{folder}/django.sqlite", "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE"},
            }},
        },
        "db+sqlite": {"CELERY_RESULT_BACKEND": f"db+sqlite:///{folder}/celery.sqlite?timeout=30"},
        "file": {"CELERY_RESULT_BACKEND": f"file://{folder}"},
        "redis, pickled": PICKLED,
    }[backend]


def start(kind, env, *options):
    options = ["-A", "shelf", "worker", "-l", "info", "-c", "3", "-n", f"{kind}@test", *options]
    worker = Celeriac(*options, env=env) if kind == "ours" else Process([sys.executable, "-m", "celery", *options], env)
    worker.output.wait_for(r"ready\.", timeout=4 * SECONDS)
    return worker


def outcomes(server, backend, kind, folder, given=None):
    """What a client is told by a worker of that kind."""
    folder.mkdir()
    queue = f"{kind}-{backend}"
    env = environment(server, CELERY_TASK_DEFAULT_QUEUE=queue, **(given or settings(backend, folder)))
    path = os.pathsep.join([HERE, os.path.join(HERE, "..", "..", "python")])
    if kind == "stock":
        # Of their own: a stock worker tells of tasks that others have that they are revoked.
        env |= {"SHELF_BROKER": f"{server.broker_url[:-1]}2", "SHELF_RESULTS": f"{server.result_url[:-1]}3"}
    # Stock workers do not read pickles as root, unless they are told to.
    env |= {"PYTHONPATH": path, "C_FORCE_ROOT": "true"}
    if backend == "django-db":
        run({**env, "DJANGO_SETTINGS_MODULE": "shelf.settings"}, "-m", "django", "migrate", "-v", "0")
    worker = start(kind, env)
    try:
        return json.loads(run(env, os.path.join(HERE, "shelf_client.py"), str(folder)))
    finally:
        worker.stop()
        print(worker.output.text())  # Shown where the test fails.


@pytest.fixture(scope="module")
def told(server, tmp_path_factory):
    """What is told by each kind of worker, asked of each once."""
    folder = tmp_path_factory.mktemp("backends")

    @functools.cache
    def told(backend):
        with ThreadPoolExecutor() as both:
            return list(both.map(
                lambda kind: outcomes(server, backend, kind, folder / f"{kind} {backend}"), ["ours", "stock"],
            ))

    return told


EXPECTED = {
    "chord": ["SUCCESS", 20],
    "limit": ["FAILURE", "TimeLimitExceeded(0.5,)"],
    "late limit": ["FAILURE", "TimeLimitExceeded(0.5,)"],
    "lost": ["FAILURE", "WorkerLostError('Worker exited prematurely: signal 9 (SIGKILL) Job: N.',)"],
    "lost once": ["SUCCESS", "survived"],
    "terminated": ["REVOKED", "TaskRevokedError('terminated',)"],
    "expired": ["REVOKED", "TaskRevokedError('expired',)"],
    "ignored result": "PENDING",
    "errbacks": ["shelf.tasks.die WorkerLostError", "shelf.tasks.fail Misplaced", "shelf.tasks.hooked TimeLimitExceeded"],
    "hooks": ["on_failure TimeLimitExceeded 60"],
}


@pytest.mark.parametrize("backend", ["django-db", "db+sqlite", "file", "redis, pickled"])
def test_a_client_is_told_what_a_stock_worker_tells(told, backend):
    ours, stock = told(backend)
    assert {name: ours[name] for name in EXPECTED} == EXPECTED
    assert {name: [told, stock.get(name)] for name, told in ours.items() if told != stock.get(name)} == {}
    assert ours.keys() == stock.keys()


def test_a_client_is_told_the_same_from_a_memcached(server, told, memcached, tmp_path):
    """Not that a stock worker beside one would do: its later processes share the socket that its main process has used, and
    time out. Its results in files are those that it means."""
    given = {"CELERY_RESULT_BACKEND": memcached.url}
    ours = outcomes(server, "memcached", "ours", tmp_path / "ours", given)
    stock = told("file")[1]
    assert {name: [told, stock.get(name)] for name, told in ours.items() if told != stock.get(name)} == {}
    assert ours.keys() == stock.keys()


SENT = """
import shelf.celery, django
django.setup()
from shelf import tasks
# A stock worker sends the retry before it has written that there is one.
retried = tasks.flaky.apply_async((1,), {"pause": 3}, task_id="retried")
# One after the other: who writes to SQLite beside others may wait for seconds, and try again.
for task, args, task_id in [(tasks.add, (2, 3), "value"), (tasks.fail, ("bad",), "error"), (tasks.die, (), "lost")]:
    task.apply_async(args, task_id=task_id).get(timeout=60, propagate=False)
retried.get(timeout=60, propagate=False)
"""


def database(postgres, name):
    """A database of that name, as Django's settings have it."""
    with psycopg.connect(postgres.url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return {
        "ENGINE": "django.db.backends.postgresql", "NAME": name, "USER": "celeriac", "PASSWORD": "secret",
        "HOST": "127.0.0.1", "PORT": str(postgres.port),
    }


def written(told):
    """All rows of django-celery-results' table, with their columns' names."""
    if told["ENGINE"].endswith("sqlite3"):
        connection = sqlite3.connect(told["NAME"])
    else:
        connection = psycopg.connect(
            host=told["HOST"], port=told["PORT"], user=told["USER"], password=told["PASSWORD"], dbname=told["NAME"],
        )
    with contextlib.closing(connection):
        cursor = connection.cursor()
        cursor.execute("SELECT * FROM django_celery_results_taskresult")
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row)) for row in cursor.fetchall()]


def rows(server, kind, folder, told, **more):
    """What a worker of that kind has written into django-celery-results' table, by task: digits of times are only digits."""
    folder.mkdir(exist_ok=True)
    given = {**settings("django-db", folder), **more, "CELERY_TASK_DEFAULT_QUEUE": f"rows-{kind}-{folder.name}"}
    given["DATABASES"] = {"default": told or given["DATABASES"]["default"]}
    env = environment(server, **given)
    env["PYTHONPATH"] = os.pathsep.join([HERE, os.path.join(HERE, "..", "..", "python")])
    run({**env, "DJANGO_SETTINGS_MODULE": "shelf.settings"}, "-m", "django", "migrate", "-v", "0")
    worker = start(kind, env)
    try:
        if kind == "ours" and more != ROUTED:
            worker.output.wait_for("results: +django-db.", timeout=SECONDS)
        run(env, "-c", SENT)
    finally:
        worker.stop()
        print(worker.output.text())
    found = written(given["DATABASES"]["default"])
    for row in found:
        del row["id"]
        for name, value in row.items():
            if name.startswith("date_") and value:
                row[name] = re.sub(r"\d", "0", str(value))
            elif isinstance(value, str):
                row[name] = re.sub(r"\b(ours|stock)@|Job: \d+", "", value)
    return {row["task_id"]: row for row in found}


EXTENDED = {
    "CELERY_RESULT_EXTENDED": True, "CELERY_TASK_TRACK_STARTED": True, "USE_TZ": False, "TIME_ZONE": "Asia/Kolkata",
}


# A router that decides nothing: what it would decide for a row is Django's to ask.
ROUTED = {"DATABASE_ROUTERS": ["builtins.object"]}


@pytest.mark.parametrize("side", ["sqlite", "postgresql"])
@pytest.mark.parametrize("more", [{}, EXTENDED, ROUTED], ids=["plain", "extended", "written by Django"])
def test_djangos_rows_are_those_of_a_stock_worker(server, request, tmp_path, side, more):
    kinds, told = ["ours", "stock"], {}
    if side == "postgresql":
        postgres = request.getfixturevalue("postgres")
        told = {kind: database(postgres, f"{kind}_{len(more)}") for kind in kinds}

    def found(kind):
        return rows(server, kind, tmp_path / f"{kind}-{side}-{len(more)}", told.get(kind), **more)

    with ThreadPoolExecutor() as both:
        ours, stock = both.map(found, kinds)
    assert ours.keys() == stock.keys() == {"value", "error", "retried", "lost"}
    # Row by row, so that what differs is shown.
    for task_id, row in ours.items():
        assert row == stock[task_id]
    assert ours["value"]["status"] == "SUCCESS" and bool(ours["value"]["task_name"]) == (more == EXTENDED)


ASKED = "import shelf.celery, django; django.setup(); from celeriac import backend; print(backend.address(shelf.celery.app))"


def test_the_worker_itself_writes_djangos_rows(tmp_path):
    env = {
        "PYTHONPATH": os.pathsep.join([HERE, os.path.join(HERE, "..", "..", "python")]),
        "SHELF_BROKER": "redis://", "SHELF_RESULTS": "redis://", "SHELF_SETTINGS": json.dumps(settings("django-db", tmp_path)),
    }
    listens = "from django.db.models.signals import post_save; post_save.connect(print, weak=False);"
    assert run(env, "-c", ASKED).strip() == f"django-db+sqlite:///{tmp_path}/django.sqlite?timeout=30"
    assert run(env, "-c", ASKED.replace("from", f"{listens} from", 1)).strip() == "None"


ELSEWHERE = "postgresql://u:p%40@db.example/results?sslmode=verify-full&sslrootcert=/ca.pem"


@pytest.mark.parametrize("backend", ["django-db", f"db+{ELSEWHERE}"])
def test_a_server_elsewhere_is_the_workers_unless_libpq_knows_more(backend):
    told = {
        "INSTALLED_APPS": ["django_celery_results"], "CELERY_RESULT_BACKEND": backend,
        "DATABASES": {"default": {
            "ENGINE": "django.db.backends.postgresql", "NAME": "results",
            "USER": "u", "PASSWORD": "p@", "HOST": "db.example",
            "OPTIONS": {"sslmode": "verify-full", "sslrootcert": "/ca.pem"},
        }},
    }
    env = {
        "PYTHONPATH": os.pathsep.join([HERE, os.path.join(HERE, "..", "..", "python")]), "HOME": "/nonexistent",
        "SHELF_BROKER": "redis://", "SHELF_RESULTS": backend, "SHELF_SETTINGS": json.dumps(told),
    }
    found = run(env, "-c", ASKED).strip().replace("%2F", "/")
    assert found == f"{backend.split('+')[0]}+{ELSEWHERE}"
    assert run({**env, "PGSSLMODE": "disable"}, "-c", ASKED).strip() == "None"


HOSTED = "postgresql://u:p@HOST/results"


@pytest.mark.parametrize("backend", [
    HOSTED.replace("HOST", "one.example,two.example"),
    # libpq has the rest from files in the home folder, for a server of this machine, too.
    HOSTED.replace("HOST", "localhost") + "?sslmode=verify-full",
    HOSTED.replace("HOST", "localhost") + "?sslcert=/own.pem",
])  # fmt: skip
def test_what_a_url_leaves_to_libpq_is_left_to_celery(backend):
    env = {
        "PYTHONPATH": os.pathsep.join([HERE, os.path.join(HERE, "..", "..", "python")]), "HOME": "/nonexistent",
        "SHELF_BROKER": "redis://", "SHELF_RESULTS": f"db+{backend}",
        "SHELF_SETTINGS": json.dumps({"CELERY_RESULT_BACKEND": f"db+{backend}"}),
    }
    assert run(env, "-c", ASKED).strip() == "None"
