"""Python tasks with results in databases and files, and with what only Python can read: whatever becomes of a task, its
client is told the same as by a stock worker."""

import functools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from support import SECONDS, Process
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


def run(env, *command):
    done = subprocess.run([sys.executable, *command], env={**os.environ, **env}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def outcomes(server, backend, kind, folder):
    """What a client is told by a worker of that kind."""
    folder.mkdir()
    queue = f"{kind}-{backend}"
    env = environment(server, CELERY_TASK_DEFAULT_QUEUE=queue, **settings(backend, folder))
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
