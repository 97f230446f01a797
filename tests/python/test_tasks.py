"""Stock Celery calls every task of the example worker, and reads with AsyncResult what came of it."""

import datetime
import decimal
import math
import time
import uuid

import billiard.exceptions
import celery
import pytest
from celery import group
from celery.exceptions import Reject, SoftTimeLimitExceeded, TaskRevokedError
from celery.result import ResultSet

import client
from client import Caller, CustomError
from faults import current
from support import DEAD_LETTERS, SECONDS

UTC = datetime.timezone.utc
EAST = datetime.timezone(datetime.timedelta(hours=5, minutes=30))


@pytest.fixture(scope="module")
def worker(start_worker):
    return start_worker("tasks", accept_content=["json", "msgpack", "yaml"])


@pytest.fixture
def tasks(app, server, worker):
    with current(app):
        yield Caller(app, server, "tasks")


@pytest.fixture(scope="module")
def extended(app, server, start_worker):
    """A worker that stores all that it can."""
    start_worker("extended", result_extended=True, task_track_started=True, timezone="Europe/Berlin")
    return Caller(app, server, "extended")


# What Python code does most.


def test_delay_and_get(tasks):
    assert client.add.delay(2, 3).get(timeout=SECONDS) == 5
    assert client.add.delay(2, y=3, z=4).get(timeout=SECONDS) == 9
    assert client.add.apply_async(kwargs={"x": 1, "y": -3}).get(timeout=SECONDS) == -2


def test_what_a_result_says(tasks):
    result = tasks.send("add", 2, 3)
    assert result.get(timeout=SECONDS) == 5
    assert (result.state, result.ready(), result.successful(), result.failed()) == ("SUCCESS", True, True, False)
    assert (result.result, result.traceback, result.children) == (5, None, [])
    assert abs(now() - result.date_done) < datetime.timedelta(seconds=60)
    result.forget()
    assert tasks.app.AsyncResult(result.id).state == "PENDING"


def test_mul(tasks):
    assert tasks.call("mul", -6, 7) == -42


def test_echo(tasks):
    assert tasks.call("echo", 1, "two", [3], four={"five": None}) == [[1, "two", [3]], {"four": {"five": None}}]
    assert tasks.call("echo") == [[], {}]
    odd = {"clé d'or": 1, "": 2, "self": 3, "args": 4}
    assert tasks.value(tasks.send_with("echo", kwargs=odd)) == [[], odd]


VALUES = [
    None, True, False, 0, -1, 2**53 + 1, 2**63 - 1, -(2**63), 2**63, 2**64, -(2**200), 10**4000,
    0.0, -0.0, 1.5, 0.1, 1e308, 5e-324, math.inf, -math.inf, math.nan,
    "", "é 漢字 🥕", "\x00\x7f\u2028'\"\\\n", "x" * 100_000, "__type__",
    [], {}, [[[]]], {"a": {"b": [{}]}}, list(range(1000)),
    datetime.datetime(2026, 5, 6, 7, 8, 9, 123456), datetime.datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC),
    datetime.datetime(2026, 5, 6, 7, 8, 9, 5, tzinfo=EAST), datetime.datetime.min, datetime.datetime.max,
    datetime.date(2026, 5, 6), datetime.time(7, 8, 9), datetime.time(7, 8, 9, 10),
    decimal.Decimal("1.10"), decimal.Decimal("-1E+30"), uuid.UUID(int=7), b"", b"abc", "é".encode(), b"\xff\x00\xfe",
    [decimal.Decimal(1), {"when": datetime.date(2026, 1, 1)}, [b"\x80"]],
]


def shown(value):
    """Values that compare as text: `nan` is itself, the zeros differ, and so do offsets of one instant."""
    return repr(value)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}-{str(value)[:20]!a}")
def test_identity(tasks, value):
    returned = tasks.call("identity", value)
    assert type(returned) is type(value)
    assert shown(returned) == shown(value)


PLAIN = [1, -1, 2**63, 1.5, None, True, "é\n", "yes", "1", "a: b", {"k": [{}]}, "x" * 5000]
WITH_BYTES = [*PLAIN, b"\xff\x00"]


@pytest.mark.parametrize("serializer", ["json", "msgpack", "yaml"])
@pytest.mark.parametrize("compression", [None, "zlib", "bzip2", "xz", "zstd", "brotli"])
def test_serializers_and_compressions(tasks, serializer, compression):
    sent = tasks.send_with("identity", (PLAIN,), serializer=serializer, compression=compression)
    assert tasks.value(sent) == PLAIN


@pytest.mark.parametrize("serializer", ["msgpack", "yaml"])
def test_bytes_in_serializers_that_have_them(tasks, serializer):
    assert tasks.value(tasks.send_with("identity", (WITH_BYTES,), serializer=serializer)) == WITH_BYTES


def test_yaml_times(tasks):
    times = [datetime.datetime(2026, 5, 6, 7, 8, 9, 120000), datetime.date(2026, 5, 6)]
    assert tasks.value(tasks.send_with("identity", (times,), serializer="yaml")) == times


def test_protocol_1(app, server, worker):
    with celery.Celery("old", broker=server.broker_url, backend=server.result_url, set_as_current=False) as old:
        old.conf.task_protocol = 1
        result = old.send_task("rust.add", (2, 3), {"z": 4}, queue="tasks", countdown=0.1)
        assert result.get(timeout=SECONDS) == 9


def test_xsum(tasks):
    assert tasks.call("xsum", list(range(1000))) == 499_500


def test_types(tasks):
    returned = tasks.call("types")
    assert returned == {
        "datetime": datetime.datetime(2026, 11, 22, 16, 7, 42, 89562, UTC),
        "decimal": decimal.Decimal("3.14"),
        "uuid": uuid.UUID("6f1a1ab3-9e8c-4c40-a7c9-1c9f3a4a2a5e"),
        "bytes": b"\x00\x01\xfe\xff",
    }


def test_ids(tasks):
    alone = tasks.send("ids", "x")
    assert tasks.value(alone) == [alone.id, None, "x"]
    child = tasks.send_with("ids", (1,), root_id="root", parent_id="parent", task_id="an id of my own/ü")
    assert tasks.value(child) == ["root", "parent", 1]
    assert child.id == "an id of my own/ü"


def test_sleep_and_block(tasks):
    results = [tasks.send("sleep", 0.2), tasks.send("block", 0.2)]
    assert [tasks.value(result) for result in results] == [0.2, 0.2]


def test_many_wait_at_once(tasks):
    started = time.monotonic()
    results = ResultSet([tasks.send("sleep", 0.5) for _ in range(100)])
    assert results.get(timeout=SECONDS) == [0.5] * 100
    assert time.monotonic() - started < 10


def test_a_group(tasks):
    members = [client.add.s(number, 1).set(queue="tasks") for number in range(50)]
    result = group(members).apply_async()
    assert result.get(timeout=SECONDS) == list(range(1, 51))
    assert result.successful() and result.completed_count() == 50
    assert result.children[0]._get_task_meta()["group_id"] == result.id


# Failures.


def test_fail_raises_the_class(tasks):
    for name, kind in [("ValueError", ValueError), ("KeyError", KeyError), ("ZeroDivisionError", ZeroDivisionError)]:
        result = tasks.send("fail", name, "bad 'quoted'")
        with pytest.raises(kind) as raised:
            result.get(timeout=SECONDS)
        assert raised.value.args == ("bad 'quoted'",)
        assert result.state == "FAILURE" and result.failed()
        first, *_, last = result.traceback.splitlines()
        assert first == "Traceback (most recent call last):"
        assert last.startswith(f"{name}: ") and "bad 'quoted'" in last


def test_fail_raises_a_class_of_the_project(tasks):
    error = tasks.error(tasks.send("fail", f"{CustomError.__module__}.CustomError", "ours"))
    assert type(error) is CustomError and error.args == ("ours",)


def test_fail_raises_a_class_that_nobody_imported(tasks):
    error = tasks.error(tasks.send("fail", "elsewhere.errors.OutOfStock", "none left"))
    assert type(error).__name__ == "OutOfStock" and error.args == ("none left",)


def test_panic_is_the_tasks_failure(tasks, worker):
    mark = worker.mark()
    error = tasks.error(tasks.send("panic", "at the disco"))
    assert isinstance(error, RuntimeError) and "at the disco" in str(error)
    worker.wait_for(r"Task rust\.panic\[.*\] raised unexpected: RuntimeError\(", mark)
    assert tasks.call("add", 1, 1) == 2


BAD_CALLS = [
    ((), {}), ((1,), {}), ((), {"y": 1}), ((1, 2, 3, 4), {}), ((1, 2), {"w": 5}), ((1, 2), {"x": 5}), ((1,), {"x": 1}),
]


@pytest.mark.parametrize(["args", "kwargs"], BAD_CALLS)
def test_wrong_arguments_are_told_as_python_tells_them(tasks, args, kwargs):
    with pytest.raises(TypeError) as ours:
        client.add.run(*args, **kwargs)
    error = tasks.error(tasks.send("add", *args, **kwargs))
    assert type(error) is TypeError and str(error) == str(ours.value)


def test_arguments_of_the_wrong_type(tasks):
    error = tasks.error(tasks.send("add", "one", 2))
    assert type(error) is TypeError and "x" in str(error)


def test_overflow(tasks):
    assert type(tasks.error(tasks.send("add", 2**63 - 1, 1))) is OverflowError


def test_an_unregistered_task(tasks, server):
    error = tasks.error(tasks.send("nobody"))
    assert type(error).__name__ == "NotRegistered" and error.args == ("rust.nobody",)
    assert "unregistered" in server.dead_letter()["headers"]["x-celeriac-death"]["reason"]


def test_reject_is_stored_as_celery_5_7_stores_it(tasks, worker):
    """The message was acknowledged before the run, so that there is nothing left to refuse."""
    mark = worker.mark()
    result = tasks.send("reject", "not now")
    error = tasks.error(result)
    assert type(error) is Reject and error.args[0] == "not now"
    worker.wait_for(rf"Task rust\.reject\[{result.id}\] reject requeue=False: not now", mark)


def test_ignore_stores_nothing(tasks, worker):
    mark = worker.mark()
    result = tasks.send("ignore")
    worker.wait_for(rf"Task rust\.ignore\[{result.id}\] ignored", mark)
    assert result.state == "PENDING"


# Retries, progress, states.


def test_flaky_is_retried_until_it_succeeds(tasks):
    metas, result = tasks.stored("flaky", "k", 2)
    assert [meta["status"] for meta in metas] == ["RETRY", "RETRY", "SUCCESS"]
    assert metas[0]["result"] == {"exc_type": "KeyError", "exc_message": ["k"], "exc_module": "builtins"}
    assert metas[0]["date_done"] is None
    assert result.get(timeout=SECONDS) == 3


def test_flaky_gives_up(tasks):
    error = tasks.error(tasks.send_with("flaky", ("k", 99), retries=10))
    assert type(error) is KeyError and error.args == ("k",)


def test_progress(tasks):
    metas, result = tasks.stored("progress", 3, 0.01)
    assert [(meta["status"], meta["result"]) for meta in metas] == [
        ("PROGRESS", {"current": 1, "total": 3}),
        ("PROGRESS", {"current": 2, "total": 3}),
        ("PROGRESS", {"current": 3, "total": 3}),
        ("SUCCESS", 3),
    ]


def test_started_is_stored_where_it_is_asked_for(tasks, extended):
    metas, _ = extended.stored("noop")
    assert [meta["status"] for meta in metas] == ["STARTED", "SUCCESS"]
    assert metas[0]["result"]["pid"] > 0 and "@" in metas[0]["result"]["hostname"]
    assert [meta["status"] for meta in tasks.stored("noop")[0]] == ["SUCCESS"]


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_extended_results(extended, compression):
    options = {"headers": {"tenant": "acme"}, "compression": compression}
    result = extended.send_with("echo", (1, "two"), {"three": 3}, **options)
    assert extended.value(result) == [[1, "two"], {"three": 3}]
    assert (result.name, result.args, result.kwargs) == ("rust.echo", [1, "two"], {"three": 3})
    assert (result.queue, result.retries) == ("extended", 0)
    assert "@" in result.worker


def test_stamps_are_stored(app, extended):
    signature = app.signature("rust.add", (1, 2)).set(queue="extended")
    signature.stamp(tenant="acme")
    metas, _ = extended.stored("noop", until="SUCCESS")
    result = signature.apply_async()
    assert result.get(timeout=SECONDS) == 3
    meta = result._get_task_meta()
    assert meta["stamped_headers"] == ["tenant"] and meta["tenant"] in ("acme", ["acme"])


def test_date_done_is_in_the_configured_zone(extended):
    metas, _ = extended.stored("noop")
    assert metas[-1]["date_done"][-6:] in ("+01:00", "+02:00")


def test_ignored_results_are_not_stored(tasks, worker, server):
    mark = worker.mark()
    result = tasks.send_with("add", (2, 3), ignore_result=True)
    worker.wait_for(rf"Task rust\.add\[{result.id}\] succeeded in .*: 5", mark)
    assert not server.results.exists(f"celery-task-meta-{result.id}")
    assert tasks.call("add", 2, 3) == 5


def test_a_result_expires(tasks, server):
    result = tasks.send("add", 2, 3)
    tasks.value(result)
    assert 86_000 < server.results.ttl(f"celery-task-meta-{result.id}") <= 86_400


# Times.


def now():
    return datetime.datetime.now(UTC)


def test_countdown(tasks):
    started = time.monotonic()
    assert tasks.value(tasks.send_with("add", (2, 3), countdown=1)) == 5
    assert 1 <= time.monotonic() - started < 10


@pytest.mark.parametrize("zone", [UTC, EAST, None], ids=["utc", "offset", "naive"])
def test_eta(tasks, zone):
    moment = now() + datetime.timedelta(seconds=0.5)
    eta = moment.astimezone(zone) if zone else moment.replace(tzinfo=None)
    assert tasks.value(tasks.send_with("add", (2, 3), eta=eta)) == 5
    assert now() >= moment


def test_an_eta_that_is_past(tasks):
    assert tasks.value(tasks.send_with("add", (2, 3), eta=now() - datetime.timedelta(days=400))) == 5


def test_expired_tasks_are_revoked(tasks, worker):
    mark = worker.mark()
    error = tasks.error(late := tasks.send_with("add", (2, 3), expires=now() - datetime.timedelta(seconds=5)))
    assert type(error) is TaskRevokedError and error.args == ("expired",)
    assert late.state == "REVOKED"
    worker.wait_for(rf"Discarding revoked task: rust\.add\[{late.id}\]", mark)


def test_a_task_may_expire_while_it_is_held(tasks):
    error = tasks.error(tasks.send_with("add", (2, 3), countdown=0.6, expires=0.3))
    assert type(error) is TaskRevokedError


def test_not_yet_expired_tasks_run(tasks):
    assert tasks.value(tasks.send_with("add", (2, 3), expires=60)) == 5


def test_a_task_that_expires_at_the_end_of_time_runs(tasks):
    """`datetime.max` is how people write "never"."""
    never = datetime.datetime.max
    for expires in [never, never.replace(tzinfo=UTC), never.replace(tzinfo=datetime.timezone(-EAST.utcoffset(None)))]:
        assert tasks.value(tasks.send_with("add", (2, 3), headers={"expires": expires.isoformat()})) == 5


def test_hard_time_limit(tasks, worker):
    mark = worker.mark()
    result = tasks.send_with("sleep", (60,), time_limit=1)
    error = tasks.error(result)
    assert type(error) is billiard.exceptions.TimeLimitExceeded and error.args == (1,)
    worker.wait_for(rf"Hard time limit \(1s\) exceeded for rust\.sleep\[{result.id}\]", mark)


def test_soft_time_limit(tasks, worker):
    mark = worker.mark()
    result = tasks.send_with("sleep", (60,), soft_time_limit=0.3)
    assert type(tasks.error(result)) is SoftTimeLimitExceeded
    worker.wait_for(rf"Soft time limit \(0\.3s\) exceeded for rust\.sleep\[{result.id}\]", mark)


def test_a_limit_that_is_not_reached(tasks):
    assert tasks.value(tasks.send_with("sleep", (0.05,), time_limit=30, soft_time_limit=20)) == 0.05


# Files, queues, order.


@pytest.mark.parametrize("name", ["append", "append_late"])
def test_append(tasks, tmp_path, name):
    path = tmp_path / "lines"
    for line in ["one", "two 漢字"]:
        assert tasks.call(name, str(path), line) is None
    assert path.read_text() == "one\ntwo 漢字\n"


@pytest.mark.only("redis", "lower numbers come first, in any queue")
def test_urgent_messages_come_first(app, server, start_worker, tmp_path):
    caller, path = Caller(app, server, "urgent"), tmp_path / "order"
    results = [
        caller.send_with("append", (str(path), str(priority)), priority=priority) for priority in [9, 5, 0, 3, 9, 0]
    ]
    start_worker("urgent", "-c", "1", "--prefetch-multiplier", "1")
    for result in results:
        caller.value(result)
    assert path.read_text().split() == ["0", "0", "5", "3", "9", "9"]


@pytest.mark.only("rabbitmq", "higher numbers come first, in queues that are declared with a highest priority")
def test_urgent_messages_come_first_on_rabbitmq(server, start_worker, tmp_path):
    path = tmp_path / "order"
    with celery.Celery("urgent", broker=server.broker_url, backend=server.result_url, set_as_current=False) as app:
        app.conf.task_queue_max_priority = 10
        caller = Caller(app, server, "urgent")
        results = [
            caller.send_with("append", (str(path), str(priority)), priority=priority) for priority in [9, 5, 0, 3, 9, 0]
        ]
        start_worker("urgent", "-c", "1", "--prefetch-multiplier", "1", task_queue_max_priority=10)
        for result in results:
            caller.value(result)
    assert path.read_text().split() == ["9", "9", "5", "3", "0", "0"]


def test_first_come_first_served(app, server, start_worker, tmp_path):
    caller, path = Caller(app, server, "fifo"), tmp_path / "order"
    results = [caller.send("append", str(path), str(number)) for number in range(50)]
    start_worker("fifo", "-c", "1")
    for result in results:
        caller.value(result)
    assert path.read_text().split() == [str(number) for number in range(50)]


def test_several_queues(app, server, start_worker):
    callers = [Caller(app, server, queue) for queue in ["left", "right", "middle"]]
    before = [caller.send("add", 1, number) for number, caller in enumerate(callers)]
    start_worker("left,right,middle")
    after = [caller.send("add", 2, number) for number, caller in enumerate(callers)]
    values = [result.get(timeout=SECONDS) for result in before + after]
    assert values == [1, 2, 3, 2, 3, 4]


def test_nothing_is_left_behind(tasks, server, worker):
    """The last test: every message was acknowledged, and no dead letter came that no test expected."""
    mark = worker.mark()
    tasks.call("add", 1, 1)
    worker.wait_for("succeeded", mark)
    assert worker.is_running()
    assert server.length("tasks") == 0
    assert server.length(DEAD_LETTERS) == 0
