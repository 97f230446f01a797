"""One worker for tasks in Python and in Rust: a project that imports a module which `python_tasks!` made.

`scripts/extension.sh` and `scripts/rust_tasks.sh` put the extension and the example's module where they are looked for.
"""

import datetime
import decimal
import importlib
import json
import os
import re
import subprocess
import sys
import uuid

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from celery import chain, chord, group

from faults import current
from mixed_project import CHORDS, MODULE, chords, environment
from support import ROOT, SECONDS, run

pytestmark = pytest.mark.only("redis", "who runs which task is the same with every broker")

NODE = "mixed@test"
# One of each kind that JSON has or Kombu adds, and what comes back.
VALUES = [
    None, True, 1, -(2**70), 1.5, float("inf"), "é", b"\xff\x00", b"text", [1, [None]], {"a": {"b": [1]}},
    datetime.datetime(2026, 11, 28, 11, 28, 2, 188301), datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc),
    datetime.date(2026, 11, 28), datetime.time(1, 2, 3, 4), decimal.Decimal("1.10"), uuid.UUID(int=7),
]
# Calls Rust tasks of a project whose results are not where the other tests have theirs.
CLIENT = f"""
from celery import chord
from mixed import add, shop_rust
print(shop_rust.total.delay([1, 2]).get(timeout={SECONDS}))
print(shop_rust.flaky.delay(1).get(timeout={SECONDS}))
print(type(shop_rust.fail.delay("mixed.OutOfStock", "salt").get(timeout={SECONDS}, propagate=False)).__name__)
print(chord([shop_rust.total.s([2]), add.s(3, 3)])(shop_rust.total.s()).get(timeout={SECONDS}))
"""


@pytest.fixture(scope="module")
def mixed(server):
    """The project as a client has it."""
    os.environ.update(environment(server))
    paths = [str(ROOT / "python"), MODULE]
    sys.path[:0] = paths
    project = importlib.import_module("mixed")
    project.app.conf.update(broker_url=server.broker_url, result_backend=server.result_url)
    with current(project.app):
        yield project
    sys.path[:] = [path for path in sys.path if path not in paths]


@pytest.fixture(scope="module")
def rust(mixed):
    """The module of Rust tasks."""
    return mixed.shop_rust


@pytest.fixture(scope="module")
def worker(mixed, start_mixed):
    return start_mixed("celeriac", "-c", "2", "-n", NODE)


def value(result):
    return result.get(timeout=SECONDS)


def error(result, kind):
    with pytest.raises(kind) as raised:
        value(result)
    return raised.value


def test_tasks_of_both_kinds_run_in_one_worker(mixed, rust, worker):
    assert value(rust.total.delay([1, 2], discount=1)) == 2
    assert value(mixed.add.delay(1, 2)) == 3
    assert value(rust.words.delay("a b a")) == {"a": 2, "b": 1}
    worker.output.wait_for(r"INFO/MainProcess\] Task shop_rust.total\[\S+\] succeeded in \S+s: 2")
    worker.output.wait_for(r"INFO/ForkPoolWorker-\d\] Task mixed.add\[\S+\] succeeded in \S+s: 3")


def test_canvases_alternate(mixed, rust, worker):
    assert value(chain(rust.total.s([1, 2]), mixed.add.s(3), rust.echo.s(), mixed.second.s(None))()) == {}
    members = [mixed.add.s(1, 1), rust.total.s([2]), mixed.add.s(3, 3), rust.total.s([8], 1)]
    assert value(chord(members, rust.total.s())()) == 17
    assert value(chord(members, mixed.call_rust.s())()) == 17
    assert value(chain(group(members), rust.total.s(), mixed.add.s(1))()) == 18


def test_routers_are_told_of_beside_rust_tasks(start_mixed):
    told = start_mixed("celeriac", "-c", "1", "-n", "routed@mixed", "-Q", "routed", task_routes=["mixed.router", {"x": "y"}])
    told.output.wait_for("task_routes has routers: what follows a task in Rust goes by the tables there alone")


def test_a_python_task_calls_a_rust_one_in_its_own_process(mixed, worker):
    assert value(mixed.call_rust.delay([4, 5])) == 9


@pytest.mark.parametrize("where", ["worker", "eagerly"])
def test_values_arrive_as_they_were_sent(mixed, rust, worker, where):
    result = rust.echo.apply(VALUES, {"key": VALUES}) if where == "eagerly" else rust.echo.delay(*VALUES, key=VALUES)
    args, kwargs = value(result)
    # JSON has text for keys, and no tuples.
    assert (args, kwargs) == (VALUES, {"key": VALUES})
    assert [type(arg) for arg in args] == [type(given) for given in VALUES]


def test_exceptions_are_the_projects_own(mixed, rust, worker):
    for result in [rust.fail.delay("mixed.OutOfStock", "salt"), rust.fail.apply(("mixed.OutOfStock", "salt"))]:
        assert error(result, mixed.OutOfStock).args == ("salt",)
        assert 'File "src/lib.rs", line' in result.traceback
    assert "nowhere" not in sys.modules
    assert type(error(rust.fail.delay("nowhere.Odd", "x"), Exception)).__name__ == "Odd"


@pytest.mark.parametrize("who", ["Rust", "Python"])
def test_results_in_a_database(server, start_mixed, tmp_path, who):
    queue = {"task_default_queue": f"tables of {who}"}
    results = {"result_backend": f"db+sqlite:///{tmp_path}/results.sqlite?timeout=30"}
    if who == "Python":
        # The worker knows Celery's tables by their own names.
        results["database_table_names"] = {"task": "told"}
    worker = start_mixed("celeriac", "-c", "2", "-n", f"{who}@tables", **results, **queue)
    if who == "Python":
        worker.output.wait_for(r"Only Python can store results in sqlite:///\S+: the pool runs the tasks of shop_rust")
    told = run(environment(server, **results, **queue), "-c", CLIENT)
    assert told.split() == ["3", "2", "OutOfStock", "8"]
    process = {"Rust": "MainProcess", "Python": r"ForkPoolWorker-\d"}[who]
    worker.output.wait_for(rf"INFO/{process}\] Task shop_rust.total\[\S+\] succeeded in \S+s: 8")


DJANGO_CHORDS = f"""
import django
django.setup()
{CHORDS}from django_celery_results.models import ChordCounter, TaskResult
print(ChordCounter.objects.count(), TaskResult.objects.exclude(status="SUCCESS").count())
"""


@pytest.mark.parametrize("beside", ["alone", "beside a stock worker"])
def test_chords_are_counted_in_djangos_tables(server, start_mixed, tmp_path, monkeypatch, beside):
    told = {
        "INSTALLED_APPS": ["django_celery_results"],
        "DATABASES": {"default": {
            "ENGINE": "django.db.backends.sqlite3", "NAME": f"{tmp_path}/django.sqlite",
            "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE"},
        }},
    }
    names = {"DJANGO_SETTINGS_MODULE": "shelf.settings", "SHELF_BROKER": "redis://", "SHELF_RESULTS": "redis://"}
    for name, value in {**names, "SHELF_SETTINGS": json.dumps(told), **environment(server)}.items():
        monkeypatch.setenv(name, value)
    run({}, "-m", "django", "migrate", "-v", "0")
    options = {"result_backend": "django-db", "task_default_queue": f"chords {beside}"}
    printed = chords(server, start_mixed, beside, "django-db.sqlite:", DJANGO_CHORDS, **options)
    error, counted = printed.splitlines()
    assert "OutOfStock" in error and counted == "0 2", printed


def test_retries(mixed, rust, worker):
    assert value(rust.flaky.delay(1)) == 2
    assert value(rust.flaky.apply((3,))) == 4
    assert error(rust.flaky.apply((9,)), KeyError).args == ("not yet",)


def test_called_as_a_function(mixed, rust):
    assert rust.total([1, 2]) == 3
    assert rust.progress(1, 0.0) == 1
    with pytest.raises(KeyError):
        rust.flaky(1)
    with pytest.raises(RuntimeError, match=r"panicked at src/lib.rs:\d+:\d+: oh"):
        rust.panic("oh")


def test_a_call_that_does_not_fit_is_refused_where_it_is_made(mixed, rust):
    for call in [lambda: rust.total.delay(), lambda: rust.total.delay([1], nope=1), lambda: rust.total()]:
        with pytest.raises(TypeError, match=r"total\(\)"):
            call()
    with pytest.raises(TypeError, match=r"total\(\) argument 'prices'"):
        rust.total("x")
    with pytest.raises(TypeError, match="not JSON serializable"):
        rust.echo(object())


@pytest.fixture(scope="module")
def stock(mixed, start_mixed):
    return start_mixed("celery", "-Q", "stock", "-c", "1", "-n", "stock@test")


def test_a_stock_worker_runs_rust_tasks(mixed, rust, stock):
    def send(task, *args, **options):
        return task.apply_async(args, queue="stock", **options)

    assert value(send(rust.total, [1, 2])) == 3
    assert value(send(rust.words, "a a")) == {"a": 2}
    assert error(send(rust.fail, "mixed.OutOfStock", "salt"), mixed.OutOfStock).args == ("salt",)
    assert value(send(rust.flaky, 1)) == 2
    # A client is told of each state, and asks for none.
    told = []
    assert send(rust.progress, 3, 0.05).get(timeout=SECONDS, on_message=told.append) == 3
    assert {state["result"]["current"] for state in told if state["status"] == "PROGRESS"} == {1, 2, 3}
    error(send(rust.progress, 1, 60, soft_time_limit=0.3), SoftTimeLimitExceeded)


def test_a_rust_task_begins_while_all_processes_are_busy(mixed, rust, worker, tmp_path):
    busy = [mixed.wait_for.delay(str(tmp_path / f"{number}")) for number in range(3)]
    for number in range(2):
        worker.output.wait_for(f"waiting for {tmp_path}/{number}")
    assert value(rust.total.delay([1])) == 1
    held = rust.total.apply_async(([2],), countdown=0.1)
    assert value(held) == 2
    for number in range(3):
        (tmp_path / f"{number}").touch()
    assert [value(one) for one in busy] == ["0", "1", "2"]


@pytest.mark.parametrize("app, reason", [
    ("mixed_twice", r"Error: a worker has one module of Rust tasks: put the tasks of other and shop_rust into one crate"),
    ("mixed_old", r"Error: the Rust tasks of shop_rust were built with Celeriac 0.0.1, and this is \S+: build shop_rust anew"),
])
def test_modules_that_make_no_worker_are_told_of(server, app, reason):
    command = [sys.executable, "-m", "celeriac", "-A", app, "worker"]
    told = subprocess.run(
        command, env={**os.environ, **environment(server)}, capture_output=True, text=True, timeout=4 * SECONDS
    )
    assert told.returncode == 1 and re.search(reason, told.stderr), told.stderr
    assert "Traceback" not in told.stderr and not told.stdout
