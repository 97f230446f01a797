"""Results at `rpc://`: the example worker sends them over RabbitMQ to the stock client that asked."""

import contextlib

import pytest
from celery import Celery, chain, chord, group, signature
from celery.exceptions import NotRegistered, TaskRevokedError

from rabbit import VHost, shared
from support import SECONDS, Worker

QUEUE = "rpc-tasks"


class Server:
    """A broker that the results come over, too."""

    def __init__(self):
        self.vhost = VHost(shared())
        self.broker_url, self.result_url = self.vhost.url, "rpc://"


@pytest.fixture(scope="module")
def server(folder):
    server = Server()
    worker = Worker(server, QUEUE, folder, task_track_started=True)
    yield server
    assert worker.stop() == 0, worker.output.text()
    server.vhost.remove()


@pytest.fixture
def app(server):
    with contextlib.closing(Celery("rpc", broker=server.broker_url, backend="rpc://", set_as_current=False)) as app:
        yield app


@pytest.fixture
def send(app):
    def send(name, *args, **options):
        return app.send_task(f"rust.{name}", args, queue=QUEUE, **options)

    return send


def task(app, name, *args, **options):
    return signature(f"rust.{name}", args=args, app=app).set(queue=QUEUE, **options)


def states(result):
    """All that comes until the task is over."""
    metas = []
    result.get(timeout=SECONDS, on_message=metas.append, propagate=False)
    return [meta["status"] for meta in metas], metas


def test_what_a_task_returns(send):
    result = send("add", 2, 3)
    assert result.get(timeout=SECONDS) == 5
    assert (result.state, result.result, result.children) == ("SUCCESS", 5, [])


def test_each_state_comes_once_and_in_order(send):
    names, metas = states(send("progress", 2, 0.0))
    assert names == ["STARTED", "PROGRESS", "PROGRESS", "SUCCESS"]
    assert metas[0]["result"]["pid"] > 0 and metas[2]["result"] == {"current": 2, "total": 2}


def test_a_retry_is_for_whom_the_first_try_was_for(send):
    names, metas = states(send("flaky", "key", 1))
    assert names == ["STARTED", "RETRY", "STARTED", "SUCCESS"]
    assert metas[1]["result"]["exc_type"] == "KeyError"


def test_a_poll_shows_the_last_state(send):
    for pause in (1.0, 10.0, 30.0):
        # The client may be held up for longer than it lasts.
        result = send("progress", 1, pause)
        states = {result.state for _ in iter(lambda: result.ready(), True)}
        assert result.state == "SUCCESS"
        if "PROGRESS" in states:
            break
    assert "PROGRESS" in states


def test_what_a_task_raises_and_what_never_runs(app, send):
    with pytest.raises(ZeroDivisionError):
        send("fail", "ZeroDivisionError", "by nought").get(timeout=SECONDS)
    with pytest.raises(NotRegistered):
        send("nobody_knows").get(timeout=SECONDS)
    revoked = send("add", 1, 2, countdown=600)
    revoked.revoke()
    with pytest.raises(TaskRevokedError):
        revoked.get(timeout=SECONDS)


def test_groups_and_chains(app):
    sums = group(task(app, "add", n, n) for n in range(200)).apply_async()
    assert sums.get(timeout=SECONDS) == [2 * n for n in range(200)]
    assert chain(task(app, "add", 1, 2), task(app, "add", 3)).apply_async().get(timeout=SECONDS) == 6
    failing = chain(task(app, "fail", "KeyError", "k"), task(app, "add", 1), task(app, "add", 2)).apply_async()
    with pytest.raises(KeyError):
        failing.get(timeout=SECONDS)


def test_chords_are_refused_by_clients_and_by_tasks(app, send):
    a_chord = chord([task(app, "add", 1, 2)], task(app, "add", 3))
    with pytest.raises(NotImplementedError) as refused:
        a_chord.apply_async()
    failed = send("send", dict(a_chord)).get(timeout=SECONDS, propagate=False)
    assert str(failed) == str(refused.value)


def test_nothing_is_sent_that_nobody_asked_for(app, server, send):
    send("add", 1, 2).get(timeout=SECONDS)
    before = set(server.vhost.depths())
    send("add", 1, 2, ignore_result=True)
    app.send_task("rust.add", (1, 2), queue=QUEUE, reply_to="nobody's queue")
    assert send("add", 2, 2).get(timeout=SECONDS) == 4
    assert set(server.vhost.depths()) == before
    assert app.backend.oid in before
