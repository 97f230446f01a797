"""Results in a memcached: Python's and Rust's tasks in one worker, alone and beside a stock one."""

import json
import types

import pytest
from celery import Celery, chord, signature

from mixed_project import chords, environment
from support import ROOT, SECONDS, Worker, run

pytestmark = pytest.mark.only("redis", "what is stored does not depend on the broker")


#: The settings of an app, and where the worker stores; ``None``: only Celery does.
ADDRESSES = [
    ({"result_backend": "cache+memcached://h:1/"}, "cache+memcached://h:1/"),
    ({"result_backend": "cache+memcache://h"}, "cache+memcache://h/"),
    ({"result_backend": "cache+pymemcache:///run/m.sock/"}, "cache+pymemcache:///run/m.sock/"),
    ({"result_backend": "cache", "cache_backend": "memcached://h:1;/"}, "cache+memcached://h:1/"),
    ({"result_backend": "celery.backends.cache:CacheBackend", "cache_backend": "memcached://h"}, "cache+memcached://h/"),
    ({"result_backend": "cache+memcached://a:1;b:2/"}, None),
    ({"result_backend": "cache+memory://"}, None),
    ({"result_backend": "cache", "cache_backend": "memory"}, None),
    ({"result_backend": "cache+memcached://h", "cache_backend_options": {"timeout": 1, "binary": True}}, "cache+memcached://h/"),
    ({"result_backend": "cache+memcached://h", "cache_backend_options": {"key_prefix": "x"}}, None),
    ({"result_backend": "cache+memcached://h", "result_serializer": "pickle"}, None),
]
ASKED = """
import json, sys
from celery import Celery
from celeriac import backend, settings
for asked in json.loads(sys.stdin.read()):
    app = Celery("asked", set_as_current=False)
    app.conf.update(asked)
    told = settings.of(app)
    print(json.dumps([backend.address(app), told.get("result_backend"), told.get("cache_backend_options")]))
"""


def test_one_server_is_the_workers_and_what_only_celery_knows_is_left_to_it():
    asked = json.dumps([settings for settings, _ in ADDRESSES])
    printed = run({"PYTHONPATH": str(ROOT / "python")}, "-c", ASKED, input=asked)
    told = [json.loads(line) for line in printed.splitlines()]
    for (settings, address), found in zip(ADDRESSES, told, strict=True):
        options = {"timeout": 1} if "binary" in settings.get("cache_backend_options", {}) else None
        assert found == [address, address, options], settings


@pytest.mark.parametrize("beside", ["alone", "beside a stock worker"])
def test_chords_of_rust_and_python_members(server, start_mixed, memcached, beside):
    options = {"result_backend": memcached.url, "task_default_queue": f"cached chords {beside}"}
    assert "OutOfStock" in chords(server, start_mixed, beside, r"memcached://127.0.0.1:\d+/", **options)


LARGE = f"""
from celery import chord
from mixed import add, shop_rust
large = add.delay(["x" * (1 << 20)], ["x"])
for result in [shop_rust.echo.delay("x" * (2 << 20)), chord([shop_rust.echo.s("x" * (2 << 20))] * 2)(shop_rust.noop.si())]:
    error = result.get(timeout={SECONDS}, propagate=False)
    assert "too large" in str(error), str(error)[:200]
print(large.id)
assert shop_rust.total.delay([1, 2]).get(timeout={SECONDS}) == add.delay(1, 2).get(timeout={SECONDS}) == 3
"""


def test_what_is_too_large_fails_its_task_and_no_other(server, start_mixed, memcached):
    options = {"result_backend": memcached.url, "task_default_queue": "cached large"}
    worker = start_mixed("celeriac", "-c", "2", "-n", "ours@large", **options)
    told = run(environment(server, **options), "-c", LARGE)
    # A stock worker, too, only says so of a Python task; its message is kept here.
    worker.output.wait_for(rf"Task mixed.add\[{told.strip()}\]: the result cannot be stored: .* object too large")


def test_a_server_that_goes_away_and_comes_back_costs_no_task(server, tmp_path, memcached):
    own = types.SimpleNamespace(broker_url=server.broker_url, result_url=memcached.url)
    worker = Worker(own, "cached-away", tmp_path, task_default_queue="cached-away")
    app = Celery("away", broker=server.broker_url, backend=memcached.url, set_as_current=False)
    app.conf.task_default_queue = "cached-away"
    with app:
        add = signature("rust.add", args=(2, 3), app=app)
        assert add.delay().get(timeout=SECONDS) == 5
        memcached.stop()
        # The client's own is another matter: pymemcache raises at what it finds dead.
        app.backend.client.close()
        before = worker.mark()
        waiting = [add.delay() for _ in range(20)]
        worker.wait_for("Connection to memcached lost", since=before)
        memcached.start()
        assert [result.get(timeout=SECONDS) for result in waiting] == [5] * 20
        total = chord([add] * 3)(signature("rust.identity", app=app))
        assert total.get(timeout=SECONDS) == [5, 5, 5]
    assert worker.stop() == 0, worker.output.text()
