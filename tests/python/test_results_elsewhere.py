"""Results in files, in Celery's own tables and in a memcached: the example worker writes them, and a stock client reads them."""

import contextlib
import types
from datetime import datetime, timezone

import pytest
from celery import Celery, chord, group, signature
from celery.result import GroupResult

from client import CustomError
from support import SECONDS, Worker

pytestmark = pytest.mark.only("redis", "what is stored does not depend on the broker")


@pytest.fixture(scope="module", params=["file", "db+sqlite", "db+postgresql", "database, extended", "memcached"])
def app(request, server, tmp_path_factory):
    """A client, whose worker is there."""
    folder = tmp_path_factory.mktemp("results")
    url = {
        "file": lambda: f"file://{folder}",
        "db+sqlite": lambda: f"db+sqlite:///{folder}/results.sqlite?timeout=30",
        "db+postgresql": lambda: f"db+{request.getfixturevalue('postgres').url}",
        "memcached": lambda: request.getfixturevalue("memcached").url,
        "database, extended": lambda: f"db+sqlite:///{folder}/extended.sqlite?timeout=30",
    }[request.param]()
    extended = "extended" in request.param
    queue = f"elsewhere {request.param}".replace(",", "").replace(" ", "-").replace("+", "-")
    settings = {"task_default_queue": queue, "task_track_started": True, "result_extended": extended}
    urls = types.SimpleNamespace(broker_url=server.broker_url, result_url=url)
    worker = Worker(urls, queue, folder, **settings)
    app = Celery("elsewhere", broker=server.broker_url, backend=url, set_as_current=False)
    app.conf.update(task_default_queue=queue, result_extended=extended)
    with contextlib.closing(app):
        yield app
    assert worker.stop() == 0, worker.output.text()


def task(app, name, *args, **options):
    return signature(f"rust.{name}", args=args, app=app).set(**options)


def test_what_a_task_returns(app):
    result = task(app, "add", 2, 3).delay()
    assert result.get(timeout=SECONDS) == 5
    assert (result.state, result.traceback) == ("SUCCESS", None)
    done = result.date_done
    assert abs(done.replace(tzinfo=done.tzinfo or timezone.utc) - datetime.now(timezone.utc)).total_seconds() < 60
    if app.conf.result_extended:
        assert (result.name, result.args, result.kwargs) == ("rust.add", [2, 3], {})
        assert (result.retries, result.queue) == (0, app.conf.task_default_queue)
    result.forget()
    assert app.AsyncResult(result.id).state == "PENDING"


def test_exceptions(app):
    result = task(app, "fail", "client.CustomError", "oh").delay()
    with pytest.raises(CustomError, match="oh"):
        result.get(timeout=SECONDS)
    assert result.state == "FAILURE"


def test_groups_and_chords(app):
    done = group(task(app, "add", number, 1) for number in range(20)).apply_async()
    assert done.get(timeout=SECONDS) == list(range(1, 21))
    done.save()
    assert GroupResult.restore(done.id, app=app) == done
    total = chord([task(app, "add", number, number) for number in range(5)])(task(app, "identity"))
    assert total.get(timeout=SECONDS) == [0, 2, 4, 6, 8]


def test_what_a_stock_worker_stored_is_kept(app):
    app.backend.store_result("kept", 1, "SUCCESS")
    task(app, "add", 2, 3).apply_async(task_id="kept")
    assert task(app, "add", 2, 4).delay().get(timeout=SECONDS) == 6
    assert app.AsyncResult("kept").get(timeout=SECONDS) == 1
