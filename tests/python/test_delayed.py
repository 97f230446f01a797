"""Native delayed delivery: what waits at RabbitMQ for its ETA, beside stock producers and stock workers."""

import json
import pathlib
import sys
from datetime import datetime, timedelta, timezone

import pytest
from celery import Celery

from faults import eventually
from rabbit import Rabbit
from support import SECONDS, Process, Worker

SETTINGS = {
    "task_default_queue_type": "quorum", "task_default_exchange_type": "topic",
    "task_create_missing_queue_type": "quorum", "task_create_missing_queue_exchange_type": "topic",
}


@pytest.fixture
def rabbit(folder):
    rabbit = Rabbit(folder)
    yield rabbit
    rabbit.stop()


@pytest.fixture
def start(rabbit, tmp_path):
    """Starts workers, ours and stock ones, which end with the test."""
    workers = []

    def start(kind, queue="celery", **settings):
        settings = {**SETTINGS, **settings}
        if kind == "ours":
            worker = Worker(rabbit, queue, tmp_path, ["-n", f"{queue}@ours"], **settings)
        else:
            env = {
                "STOCK_BROKER": rabbit.broker_url, "STOCK_BACKEND": rabbit.result_url, "STOCK_TRANSPORT_OPTIONS": "{}",
                "STOCK_SETTINGS": json.dumps(settings), "PYTHONPATH": str(pathlib.Path(__file__).parent),
            }
            options = ["-Q", queue, "-c", "1", "-n", f"{queue}@stock", "-l", "info"]
            worker = Process([sys.executable, "-m", "celery", "-A", "stock", "worker", *options], env)
            worker.output.wait_for(r"ready\.", timeout=3 * SECONDS)
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        if not worker.is_stopped:
            worker.kill()


@pytest.fixture
def app(rabbit):
    app = Celery("client", broker=rabbit.broker_url, backend=rabbit.result_url, set_as_current=False)
    app.conf.update(SETTINGS)
    return app


KNOWN = {
    "rabbit_exchange": "name, type, durable, auto_delete, internal, arguments",
    "rabbit_amqqueue": "name, durable, auto_delete, exclusive, arguments",
    "rabbit_binding": "source_name, destination_name, destination_kind, routing_key, arguments",
}


def declared(rabbit):
    """All exchanges, queues with their arguments, and bindings, but for those of control and of events."""
    return [[row for row in rows if "pidbox" not in row and "celeryev" not in row] for rows in all_declared(rabbit)]


def all_declared(rabbit):
    vhost, ask = f"<<{json.dumps(rabbit.vhost.name)}>>", rabbit.vhost.node.ask
    found = []
    for module, fields in KNOWN.items():
        # In which order arguments stand is no matter.
        info = f"[case X of {{arguments, A}} -> {{arguments, lists:sort(A)}}; _ -> X end || X <- {module}:info(I, [{fields}])]"
        listed = ask(f"lists:sort([{info} || I <- {module}:list({vhost})]).")
        rows = [row.strip("[]{") for row in listed.replace(rabbit.vhost.name, "VHOST").split("],[{")]
        found.append(rows)
    return found


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        surplus, missing = (sorted(set(a) - set(b))[:1] for a, b in [(one, other), (other, one)])
        assert one == other, f"not expected: {surplus}, not found: {missing}"


def parked(rabbit):
    """How many messages wait at levels."""
    return sum(ready for name, (ready, _) in rabbit.vhost.depths().items() if "celery_delayed_" in name)


def waits_at_the_broker(rabbit, result):
    """Waits until its message does; false if it was done before anybody could see that."""
    seen = False

    def is_seen():
        nonlocal seen
        seen = (parked(rabbit), rabbit.held()) == (1, 0)
        return seen or result.ready()

    eventually(is_seen, rabbit.vhost.depths)
    return seen


def done(result):
    """When it was, waited for."""
    result.get(timeout=SECONDS)
    return result.date_done if result.date_done.tzinfo else result.date_done.replace(tzinfo=timezone.utc)


def is_on_time(send):
    """Never early; and of three that are sent one after the other, one is not late: the machine may have something else
    to do. `send` returns the result, the moment before which it must not be done, the one soon after which it is due, and
    whether all was seen that was to be seen before.
    """
    late = []
    for _ in range(3):
        result, earliest, due, is_seen = send()
        at = done(result)
        assert earliest <= at, (earliest, at)
        if is_seen and at <= due + timedelta(seconds=1.5):
            return
        late.append((due, at, is_seen))
    raise AssertionError(f"late: {late}")


@pytest.mark.parametrize("settings", [
    {}, {"control_queue_exclusive": False, "control_queue_ttl": 7.0},
    {"control_queue_durable": True, "control_queue_exclusive": False, "control_queue_expires": 77.0},
], ids=["exclusive", "neither", "durable"])
def test_the_control_queue_is_declared_as_by_a_stock_worker(rabbit, start, settings):
    found = {}
    for kind in ("stock", "ours"):
        worker = start(kind, **settings)
        rows = [row for rows in all_declared(rabbit) for row in rows if f"@{kind}.celery.pidbox" in row]
        found[kind] = [row.replace(f"@{kind}", "@") for row in rows]
        assert worker.stop() == 0
    # A queue and its two bindings.
    assert found["ours"] == found["stock"] and len(found["ours"]) == 3, found


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
def test_declarations_are_those_of_a_stock_worker(folder, rabbit, start, queue_type):
    settings = {"broker_native_delayed_delivery_queue_type": queue_type}
    stock = start("stock", **settings)
    assert stock.stop() == 0
    expected = declared(rabbit)
    levels = [row for row in expected[1] if "x-dead-letter-exchange" in row]
    assert len(levels) == 28 and all(queue_type in row for row in levels)
    # What is there can be declared again, and nothing is added to it.
    ours = start("ours", **settings)
    assert "Failed" not in ours.output.text()
    assert ours.stop() == 0
    assert_same(declared(rabbit), expected)
    # The same the other way round, where ours was first.
    rabbit.vhost.remove()
    other = Rabbit(folder)
    rabbit.vhost, rabbit.broker_url = other.vhost, other.broker_url
    ours = start("ours", **settings)
    assert ours.stop() == 0
    assert_same(declared(rabbit), expected)
    stock = start("stock", **settings)
    assert "Failed" not in stock.output.text()
    assert stock.stop() == 0
    assert_same(declared(rabbit), expected)
    other._results.stop()


def test_levels_of_another_type_are_logged_and_the_worker_goes_on(rabbit, start, app):
    start("ours", broker_native_delayed_delivery_queue_type="classic").stop()
    worker = start("ours")
    assert "Failed to set up delayed delivery: PreconditionFailed(406" in worker.output.text()
    assert app.send_task("rust.add", [1, 2]).get(timeout=SECONDS) == 3


def test_direct_exchanges_are_named_and_nothing_waits_for_them(rabbit, start, app):
    worker = start("ours", task_default_exchange_type="direct")
    assert "Exchange celery is a direct exchange" in worker.output.text()
    app.conf.task_default_exchange_type = "direct"

    def send():
        eta = datetime.now(timezone.utc) + timedelta(seconds=1)
        return app.send_task("rust.add", [1, 2], countdown=1), eta, eta, True

    is_on_time(send)


def test_a_stock_producers_countdown_runs_in_our_worker_on_time(rabbit, start, app):
    start("ours")

    def send():
        eta = datetime.now(timezone.utc) + timedelta(seconds=3.4)
        result = app.send_task("rust.add", [1, 2], countdown=3.4)
        return result, eta, eta, waits_at_the_broker(rabbit, result)

    is_on_time(send)


def test_what_our_worker_sends_for_later_runs_in_a_stock_worker_on_time(rabbit, start, app):
    start("ours")
    start("stock", "other")
    pause = timedelta(seconds=3.4)

    def send():
        begun = datetime.now(timezone.utc)
        then = app.signature("rust.add", (10,), countdown=pause.total_seconds(), queue="other")
        result = app.send_task("rust.add", [1, 2], link=then)
        assert result.get(timeout=SECONDS) == 3
        [child] = result.children
        is_seen = waits_at_the_broker(rabbit, child)
        assert child.get(timeout=SECONDS) == 13
        # Sent when the first had ended.
        return child, begun + pause, done(result) + pause, is_seen

    is_on_time(send)


@pytest.mark.parametrize("first, second", [("ours", "ours"), ("ours", "stock"), ("stock", "ours")])
def test_retries_wait_at_the_broker(rabbit, start, app, first, second):
    """After 1, 2 and 4 seconds; the first retry comes from one worker, the others are another's."""
    worker = start(first)
    begun = datetime.now(timezone.utc)
    result = app.send_task("rust.flaky", ["k", 3], countdown=1)
    if first != second:
        worker.output.wait_for("[Rr]etry: ?Retry in 1s|[Rr]etry in 1s")
        assert worker.stop() == 0
        start(second)
    assert result.get(timeout=2 * SECONDS) == 4
    assert datetime.now(timezone.utc) >= begun + timedelta(seconds=8)
    # Acknowledged after its result is there.
    eventually(lambda: rabbit.held() == 0 and parked(rabbit) == 0, "nothing to be left")


def test_what_is_parked_runs_in_a_stock_worker_too(rabbit, start, app):
    """A queue behind a direct exchange, which Celery's own delays cannot reach."""
    settings = {"task_default_queue_type": "classic", "task_default_exchange_type": "direct"}
    app.conf.update(settings)
    stock = None

    def send():
        nonlocal stock
        if stock:
            assert stock.stop() == 0
        worker = start("ours", worker_park_eta_after=2, **settings)
        eta = datetime.now(timezone.utc) + timedelta(seconds=14)
        result = app.send_task("rust.add", [1, 2], countdown=14)
        is_seen = waits_at_the_broker(rabbit, result)
        assert worker.stop() == 0
        stock = start("stock", **settings)
        # One that is there too late cannot show that it waits.
        is_seen = is_seen and datetime.now(timezone.utc) < eta - timedelta(seconds=2)
        return result, eta, eta, is_seen

    is_on_time(send)
