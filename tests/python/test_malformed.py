"""Messages that nobody should send, as real bytes in the queue: what is logged, stored and kept, and that work goes on.

On RabbitMQ a message is properties, a table of headers and a body: bytes that are no envelope are for Redis alone, and
tables that py-amqp does not write are for RabbitMQ alone.
"""

import base64
import datetime
import decimal
import json
import struct

import pytest
from celery.exceptions import NotRegistered

from client import Caller
from malformed import (
    EMBED, INVALID, NO_ENVELOPES, NO_TASKS, NO_TEXT, REFUSALS, REFUSED, UNDECODABLE, UNKNOWN, UNREGISTERED, envelope,
)
from rabbit import RawTable
from support import DEAD_LETTERS, DEATH, SECONDS

QUEUE = "malformed"


@pytest.fixture(scope="module")
def worker(start_worker):
    return start_worker(QUEUE)


@pytest.fixture(scope="module")
def tasks(app, server, worker):
    return Caller(app, server, QUEUE)


@pytest.fixture(scope="module")
def template(app, server, worker):
    """A good message as stock Celery writes it."""
    app.send_task("rust.add", (2, 3), queue="template")
    return server.take("template")


class Sent:
    """A message that was put into the queue as it is."""

    def __init__(self, tasks, worker, raw):
        self._mark = worker.mark()
        self._worker, self._server = worker, tasks.server
        self.raw = raw
        self._server.push(QUEUE, raw)

    def is_logged(self, pattern):
        self._worker.wait_for(pattern, self._mark)

    def is_kept(self, reason):
        """It became a dead letter with that reason, and can be put back as it was."""
        letter = self._server.dead_letter()
        death = letter["headers"].pop(DEATH)
        assert reason and reason in death["reason"]
        assert death["queue"] == QUEUE and "@" in death["hostname"] and death["time"]
        return letter

    def is_gone(self):
        """Nothing of it is left with the broker."""
        assert self._server.length(QUEUE) == 0
        assert self._server.length(DEAD_LETTERS) == 0
        self._server.holds_nothing()


@pytest.fixture
def send(tasks, worker):
    """Puts bytes, or an envelope, into the queue; afterwards a good task must run, and all must be acknowledged."""

    def send(raw):
        sent.append(Sent(tasks, worker, raw))
        return sent[-1]

    sent = []
    yield send
    assert tasks.call("add", 20, 22) == 42
    assert worker.is_running()
    for one in sent:
        one.is_gone()


def rows(table, elsewhere={}):
    """The rows of a table for `parametrize`; some are for one kind of broker, and say why."""
    for name, row in table.items():
        marks = [pytest.mark.only(*elsewhere[name])] if name in elsewhere else []
        yield pytest.param(*(row if isinstance(row, tuple) else [row]), id=name, marks=marks)


NO_ENVELOPE_IN_AMQP = pytest.mark.only("redis", "AMQP has no envelope: RabbitMQ takes no other message")


@NO_ENVELOPE_IN_AMQP
@pytest.mark.parametrize(["raw", "reason"], rows(NO_ENVELOPES))
def test_bytes_that_are_no_envelope(send, raw, reason):
    sent = send(raw)
    sent.is_logged(UNDECODABLE)
    letter = sent.is_kept(reason)
    assert base64.b64decode(letter["body"]) == raw
    assert letter["content-type"] == "application/data"


@NO_ENVELOPE_IN_AMQP
def test_a_body_that_is_not_base64(send, template):
    sent = send(envelope(template, body="!!! not base64 !!!") | {"body": "!!! not base64 !!!"})
    sent.is_logged(UNDECODABLE)
    letter = sent.is_kept("the body is not base64")
    assert json.loads(base64.b64decode(letter["body"])) == sent.raw


@pytest.mark.parametrize("changes", rows(NO_TASKS))
def test_messages_that_are_no_task(send, template, changes):
    message = envelope(template, **changes)
    sent = send(message)
    sent.is_logged(UNKNOWN)
    letter = sent.is_kept("not a task message")
    assert (letter["headers"], letter["body"]) == (message["headers"], message["body"])


@pytest.mark.parametrize(["changes", "logged", "exception", "reason"], rows(REFUSALS))
def test_tasks_that_cannot_be_run(send, tasks, template, request, changes, logged, exception, reason):
    task_id = f"refused {request.node.callspec.id}"
    message = envelope(template, **{**changes, "headers": {"id": task_id, **changes.get("headers", {})}})
    sent = send(message)
    sent.is_logged(logged)
    letter = sent.is_kept(reason)
    assert (letter["headers"], letter["body"]) == (message["headers"], message["body"])
    assert letter.get("content-type") == message.get("content-type")
    if exception is not None:
        error = tasks.error(tasks.app.AsyncResult(task_id))
        assert type(error).__name__ == exception
    else:
        assert tasks.app.AsyncResult(task_id).state == "PENDING"


def test_not_registered_is_celerys_own_exception(send, tasks, template):
    sent = send(envelope(template, headers={"task": "no.such.task", "id": "nobody"}))
    sent.is_kept("no.such.task")
    with pytest.raises(NotRegistered):
        tasks.app.AsyncResult("nobody").get(timeout=SECONDS)


def test_a_dead_letter_can_be_sent_again(send, tasks, template):
    """What `requeue` will do: the header away, the message back to its queue."""
    sent = send(envelope(template, headers={"id": "second life", "eta": "tomorrow"}))
    letter = sent.is_kept("tomorrow")
    letter["headers"]["eta"] = None
    send(letter)
    result = tasks.app.AsyncResult("second life")
    sent.is_logged(r"Task rust\.add\[second life\] succeeded")
    assert result.get(timeout=SECONDS) == 5


# What is odd and runs all the same. Each row: the task, what is changed, and what comes out.

TEN_THOUSAND_DIGITS = 10**4000
ODDITIES = {
    "eta empty": ("add", dict(headers={"eta": ""}), 5),
    "expires empty": ("add", dict(headers={"expires": ""}), 5),
    "eta with Z": ("add", dict(headers={"eta": "2026-01-02T03:04:05Z"}), 5),
    "eta with an offset": ("add", dict(headers={"eta": "2026-01-02T03:04:05+02:00"}), 5),
    "eta with an offset without colon": ("add", dict(headers={"eta": "2026-01-02T03:04:05+0200"}), 5),
    "eta naive": ("add", dict(headers={"eta": "2026-01-02T03:04:05.678901"}), 5),
    "eta with nine digits": ("add", dict(headers={"eta": "2026-01-02T03:04:05.123456789+00:00"}), 5),
    "eta is a date": ("add", dict(headers={"eta": "2026-01-02"}), 5),
    "eta is compact": ("add", dict(headers={"eta": "20260102T030405"}), 5),
    "eta with a space": ("add", dict(headers={"eta": "2026-01-02 03:04:05"}), 5),
    "eta long ago": ("add", dict(headers={"eta": "0001-01-01T00:00:00"}), 5),
    "expires late": ("add", dict(headers={"expires": "9999-12-30T00:00:00"}), 5),
    "retries null": ("add", dict(headers={"retries": None}), 5),
    "retries text": ("add", dict(headers={"retries": "many"}), 5),
    "retries negative": ("add", dict(headers={"retries": -5}), 5),
    "retries huge": ("add", dict(headers={"retries": 10**30}), 5),
    "timelimit null": ("add", dict(headers={"timelimit": None}), 5),
    "timelimit odd": ("add", dict(headers={"timelimit": ["soon", {}]}), 5),
    "timelimit short": ("add", dict(headers={"timelimit": [30]}), 5),
    "timelimit huge": ("add", dict(headers={"timelimit": [1e300, -1]}), 5),
    "timelimit nan": ("add", dict(headers={"timelimit": [float("nan"), float("inf")]}), 5),
    "only task and id": ("add", dict(only=["task", "id"]), 5),
    "args null": ("echo", dict(body=[None, {}, EMBED]), [[], {}]),
    "embed null": ("echo", dict(body=[[1], {}, None]), [[1], {}]),
    "embed empty": ("echo", dict(body=[[1], {}, {}]), [[1], {}]),
    "empty continuations": ("echo", dict(body=[[1], {}, {"callbacks": [], "chain": [], "chord": None}]), [[1], {}]),
    "huge integer": ("identity", dict(body=[[TEN_THOUSAND_DIGITS], {}, EMBED]), TEN_THOUSAND_DIGITS),
    "huge float": ("identity", dict(raw_body=b"[[1e99999], {}, {}]"), float("inf")),
    "duplicate keys": ("identity", dict(raw_body=b'[[{"a": 1, "a": 2}], {}, {}]'), {"a": 2}),
    "lone surrogate": ("noop", dict(raw_body=rb'[[], {}, {"x": "\ud800"}]'), None),
    "priority huge": ("add", dict(properties={"priority": 10**40}), 5),
    "priority text": ("add", dict(properties={"priority": "high"}), 5),
    "properties odd": ("add", dict(properties={"delivery_mode": [], "reply_to": 5, "expiration": {}}), 5),
    "delivery info gone": ("add", dict(properties={"delivery_info": ...}), 5),
    "delivery info odd": ("add", dict(properties={"delivery_info": "nowhere"}), 5),
    "delivery tag gone": ("add", dict(properties={"delivery_tag": ...}), 5),
    "content encoding gone": ("add", dict(content_encoding=None), 5),
    "origin is a map": ("add", dict(headers={"origin": {"deep": [[]]}, "argsrepr": 5, "group": 7, "stamps": "x"}), 5),
    "unknown headers": ("add", dict(headers={"": 1, "x" * 1000: [{}], "é": None}), 5),
}


VIRTUAL = ("redis", "it is a property of Kombu's virtual transports")
ODD_ON_ONE = {
    "retries huge": ("redis", "AMQP has no integer of more than 64 bits"),
    "timelimit nan": ("redis", "RabbitMQ takes finite numbers alone, and ends the connection for others"),
    "priority huge": ("redis", "AMQP has one byte for it"),
    "priority text": ("redis", "AMQP has one byte for it"),
    "properties odd": ("redis", "AMQP's properties have their types"),
    "unknown headers": ("redis", "AMQP's names have up to 255 bytes"),
    **dict.fromkeys(["delivery info gone", "delivery info odd", "delivery tag gone"], VIRTUAL),
}


@pytest.mark.parametrize(["task", "changes", "expected"], rows(ODDITIES, ODD_ON_ONE))
def test_odd_messages_that_run(send, tasks, template, request, task, changes, expected):
    task_id = f"odd {request.node.callspec.id}"
    changes = dict(changes)
    only = changes.pop("only", None)
    headers = {"task": f"rust.{task}", "id": task_id, **changes.pop("headers", {})}
    message = envelope(template, headers=headers, **changes)
    if only:
        message["headers"] = {name: message["headers"][name] for name in only}
    send(message)
    assert tasks.app.AsyncResult(task_id).get(timeout=SECONDS) == expected


@NO_ENVELOPE_IN_AMQP
def test_a_raw_body_without_base64(send, tasks, template):
    message = envelope(template, headers={"id": "plain body"}, properties={"body_encoding": ...})
    message["body"] = json.dumps([[2, 3], {}, EMBED])
    send(message)
    assert tasks.app.AsyncResult("plain body").get(timeout=SECONDS) == 5


def test_wrong_arguments_are_an_ordinary_failure(send, tasks, template):
    send(envelope(template, headers={"id": "wrong arguments"}, body=[[1], {"w": 2}, EMBED]))
    assert type(tasks.error(tasks.app.AsyncResult("wrong arguments"))) is TypeError


# What is to follow a task is read once it has run: stock Celery fails the task for what was to follow its success, and
# says nothing of what is not needed. The message was acknowledged before, so that nothing is kept.
CONTINUATIONS = {
    "callbacks malformed": ({"callbacks": [{"no": "task"}]}, "FAILURE"),
    "callbacks are text": ({"callbacks": "text"}, "FAILURE"),
    "chain malformed": ({"chain": [5]}, "FAILURE"),
    "chord malformed": ({"chord": "body"}, "SUCCESS"),
    "errbacks malformed": ({"errbacks": [[]]}, "SUCCESS"),
}


@pytest.mark.parametrize(["embed", "state"], rows(CONTINUATIONS))
def test_malformed_continuations_fail_the_task(send, tasks, template, request, embed, state):
    task_id = f"continuation {request.node.callspec.id}"
    send(envelope(template, headers={"id": task_id}, body=[[1, 2], {}, {**EMBED, **embed}]))
    result = tasks.app.AsyncResult(task_id)
    if state == "SUCCESS":
        assert result.get(timeout=SECONDS) == 3
    else:
        assert "signature" in str(tasks.error(result))
    assert result.state == state


def bare(body):
    """A message that has nothing but a body."""
    return {"body": base64.b64encode(body).decode(), "headers": None, "properties": {"body_encoding": "base64"}}


def test_a_thousand_of_all_kinds_at_once(tasks, worker, server, template):
    """None is lost and none holds up another: so many dead letters, so many results."""
    bad = [envelope(template, headers={"id": f"bad {n}", "eta": "never"}) for n in range(500)]
    bodies = [b"\xff" * n for n in range(250)]
    good = [tasks.send("add", n, 1) for n in range(250)]
    server.push(QUEUE, *bad, *(bodies if server.kind == "redis" else map(bare, bodies)))
    good += [tasks.send("add", n, 1) for n in range(250, 500)]
    assert [result.get(timeout=SECONDS) for result in good] == list(range(1, 501))
    letters = [server.dead_letter() for _ in range(750)]
    assert sum(letter["content-type"] == "application/json" for letter in letters) == 500
    assert server.length(DEAD_LETTERS) == 0
    server.holds_nothing()
    assert worker.is_running()


def test_nothing_stays_unacknowledged(start_worker, app, server):
    """A worker that ends has settled all that it was sent, the malformed too."""
    worker = start_worker("last")
    server.push("last", b"not JSON" if server.kind == "redis" else bare(b"not JSON"))
    server.dead_letter()
    assert Caller(app, server, "last").call("add", 1, 2) == 3
    server.holds_nothing()
    assert worker.stop() == 0
    assert server.length("last") == 0


# Tables of headers as AMQP has them, of other producers or of nobody's. Each row: what stands behind the headers that a
# task has, as bytes; what the task gets of it, or a piece of why the message is refused.

def field(name, kind, value):
    """One entry of a table."""
    return bytes([len(name)]) + name.encode() + kind.encode() + value


def nested(levels):
    """A list in a list in a list."""
    inner = b""
    for _ in range(levels):
        inner = b"A" + struct.pack(">I", len(inner)) + inner
    return b"\x04deep" + inner


TABLES = {
    "short integers": field("a", "b", b"\x80") + field("b", "B", b"\xff") + field("c", "s", b"\x80\0"),
    "unsigned integers": field("a", "u", b"\xff\xff") + field("b", "i", b"\xff" * 4),
    "floats": field("a", "f", b"\x3f\x80\0\0") + field("b", "d", b"\x7f\xef" + b"\xff" * 6),
    "text that is not UTF-8": field("a", "S", b"\0\0\0\2\xff\xfe"),
    "bytes": field("a", "x", b"\0\0\0\2\xff\xfe"),
    "a decimal": field("a", "D", b"\x02\xff\xff\xff\xfb"),
    "a decimal with its point far away": field("a", "D", b"\xff\0\0\0\1"),
    "times": field("a", "T", b"\0" * 8) + field("b", "T", struct.pack(">Q", 253402300799)),
    "a name twice": field("a", "V", b"") + field("a", "t", b"\1"),
    "an empty name": field("", "V", b""),
    "a long name": field("n" * 255, "V", b""),
    "a list of everything": field("a", "A", b"\0\0\0\x06" + b"V" + b"t\1" + b"B\x07" + b"V"),
    "deep": nested(30),
}
REFUSED_TABLES = {
    "a time beyond all clocks": (field("a", "T", b"\xff" * 8), "out of range"),
}
JSON = {"content-type": "application/json", "content-encoding": "utf-8"}
TABLES_ARE_AMQP = pytest.mark.only("rabbitmq", "only AMQP has tables")


@TABLES_ARE_AMQP
@pytest.mark.parametrize("entries", rows(TABLES))
def test_tables_that_are_read(send, tasks, template, request, entries):
    task_id = f"table {request.node.callspec.id}"
    message = envelope(template, headers={"id": task_id})
    send({**message, "headers": RawTable(message["headers"], entries)})
    assert tasks.app.AsyncResult(task_id).get(timeout=SECONDS) == 5


@TABLES_ARE_AMQP
@pytest.mark.parametrize("entries", rows(TABLES))
def test_what_was_in_a_table_is_kept_with_its_message(send, template, entries):
    """A dead letter has all of it, and can be sent again."""
    message = envelope(template, headers={"id": "kept", "task": "no.such.task"})
    sent = send({**message, "headers": RawTable(message["headers"], entries)})
    sent.is_logged(UNREGISTERED)
    letter = sent.is_kept("no.such.task")
    # What py-amqp reads of the letter is what it reads of the message.
    assert shown(letter["headers"]) == shown(RawTable(message["headers"], entries).read())


def shown(value):
    """`nan` is itself, and one number is as good as another type of it."""
    if isinstance(value, dict):
        return {name: shown(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shown(item) for item in value]
    return repr(bytes(value) if isinstance(value, (bytearray, memoryview)) else value)


@TABLES_ARE_AMQP
@pytest.mark.parametrize(["entries", "reason"], rows(REFUSED_TABLES))
def test_tables_that_are_not_read(send, template, entries, reason):
    message = envelope(template, headers={"id": "unread"})
    sent = send({**message, "headers": RawTable(message["headers"], entries)})
    sent.is_logged(UNDECODABLE)
    letter = sent.is_kept(reason)
    assert letter["body"] == message["body"]


@TABLES_ARE_AMQP
@pytest.mark.parametrize("levels", [33, 250, 20_000])
def test_a_table_that_is_too_deep_harms_nobody(send, tasks, template, levels):
    """The header is text then, of its bytes; the task does not need it."""
    message = envelope(template, headers={"id": f"deep {levels}"})
    send({**message, "headers": RawTable(message["headers"], nested(levels))})
    assert tasks.app.AsyncResult(f"deep {levels}").get(timeout=SECONDS) == 5


@TABLES_ARE_AMQP
@pytest.mark.parametrize(["body", "types", "logged", "reason"], [
    pytest.param(b"", {}, UNKNOWN, "not a task message", id="nothing at all"),
    pytest.param(b"text", {}, UNKNOWN, "not a task message", id="a body"),
    pytest.param(b"\xff\0", JSON, UNDECODABLE, NO_TEXT, id="bytes as JSON"),
    pytest.param(b"[1]", JSON, UNKNOWN, "not a task message", id="a list"),
    pytest.param(b"{}", {"content-type": "text/plain", "content-encoding": "no such"}, INVALID, REFUSED, id="odd types"),
])
def test_messages_without_a_table(send, body, types, logged, reason):
    sent = send({**bare(body), **types})
    sent.is_logged(logged)
    letter = sent.is_kept(reason)
    assert base64.b64decode(letter["body"]) == body


@TABLES_ARE_AMQP
def test_a_task_of_protocol_1_without_a_table_runs(send, tasks):
    body = json.dumps({"task": "rust.add", "id": "first protocol", "args": [2, 3], "kwargs": {}}).encode()
    send({**bare(body), **JSON})
    assert tasks.app.AsyncResult("first protocol").get(timeout=SECONDS) == 5


@TABLES_ARE_AMQP
def test_headers_of_every_type_that_python_writes(send, tasks, template):
    headers = {
        "when": datetime.datetime.max, "then": datetime.datetime(1970, 1, 1), "price": decimal.Decimal("1.15"),
        "big": 2**63 - 1, "small": -(2**63), "raw": b"\xff", "nothing": None, "yes": True, "list": [1, [2.5, {}]],
    }
    send(envelope(template, headers={"id": "every type", **headers}))
    assert tasks.app.AsyncResult("every type").get(timeout=SECONDS) == 5


@pytest.mark.only("redis", "RabbitMQ restores by itself")
def test_what_a_stock_worker_restores_comes_back_as_it_was(start_worker, app, server, folder):
    """Bytes that are no JSON stay reserved while no dead letter can be written. A stock worker's sweep stumbles over no
    entry of ours, and what it puts back is what was sent."""
    raws = [b"not JSON", b'{"headers": tru}', b'{"headers": "\xff"}', b'{"headers": [], "body": ""}']
    server.broker.set(DEAD_LETTERS, "no list")
    holder = start_worker("restored")
    server.broker.lpush("restored", *raws)
    holder.wait_for("(?s)" + ".*".join([UNDECODABLE] * len(raws)))
    holder.kill()
    with app.connection_for_read() as connection, connection.channel() as channel:
        for tag in server.broker.hkeys("unacked"):
            channel.qos.restore_by_tag(tag.decode())
    assert server.broker.llen("restored") == len(raws)
    server.holds_nothing()
    server.broker.delete(DEAD_LETTERS)
    start_worker("restored")
    bodies = [base64.b64decode(server.dead_letter()["body"]) for _ in raws]
    assert sorted(bodies) == sorted(raws)
    server.holds_nothing()
