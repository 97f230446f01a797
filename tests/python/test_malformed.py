"""Messages that nobody should send, as real bytes in the queue: what is logged, stored and kept, and that work goes on."""

import base64
import copy
import json

import pytest
from celery.exceptions import NotRegistered

from client import Caller
from support import DEAD_LETTERS, SECONDS

QUEUE = "malformed"
DEATH = "x-celeriac-death"
DEEP = 100_000

# The beginnings of celery/worker/consumer/consumer.py: UNKNOWN_FORMAT, UNKNOWN_TASK_ERROR, INVALID_TASK_ERROR and
# MESSAGE_DECODE_ERROR.
UNKNOWN = r"WARNING/MainProcess\] Received and deleted unknown message"
UNREGISTERED = r"ERROR/MainProcess\] Received unregistered task of type"
INVALID = r"ERROR/MainProcess\] Received invalid task message: "
UNDECODABLE = r"CRITICAL/MainProcess\] Can't decode message body: "


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
    return json.loads(server.pop("template"))


class Sent:
    """A message that was put into the queue as it is."""

    def __init__(self, tasks, worker, raw):
        self._mark = worker.mark()
        self._worker, self._server = worker, tasks.server
        self.raw = raw if isinstance(raw, bytes) else json.dumps(raw).encode()
        self._server.broker.lpush(QUEUE, self.raw)

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
        assert self._server.broker.llen(QUEUE) == 0
        assert self._server.broker.llen(DEAD_LETTERS) == 0
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


def envelope(template, *, body=..., raw_body=None, headers=(), properties=(), **fields):
    """The good message with other parts; `...` takes a header or property away."""
    message = copy.deepcopy(template)
    if body is not ...:
        raw_body = json.dumps(body).encode()
    if raw_body is not None:
        message["body"] = base64.b64encode(raw_body).decode()
    for part, changes in [("headers", headers), ("properties", properties)]:
        for name, value in dict(changes).items():
            message[part][name] = value
            if value is ...:
                del message[part][name]
    message.update({name.replace("_", "-"): value for name, value in fields.items()})
    return message


# Bytes that are no envelope: there is nothing to store a result under, and all of it is kept. Each row: the bytes, and a
# piece of the reason.

NO_OBJECT = "expected an object at byte 0"
NO_TEXT = "the text is not UTF-8"
TOO_DEEP = "expected no more than 1000 levels of nesting"
NO_ENVELOPES = {
    "not JSON": (b"this is not JSON", NO_OBJECT),
    "empty": (b"", NO_OBJECT),
    "NUL": (b"\0", NO_OBJECT),
    "not UTF-8": (b'{"body": "\xff\xfe"}', NO_TEXT),
    "truncated": (
        b'{"body": "W1tdLCB7fSwge31d", "headers": {"task": "rust.add", "id": "1"', "a comma or the end of the object"),
    "a number": (b"12", NO_OBJECT),
    "null": (b"null", NO_OBJECT),
    "a list": (b"[1, 2]", NO_OBJECT),
    "a string": (b'"text"', NO_OBJECT),
    "rest behind it": (b"{} {}", "the end of the text at byte 3"),
    "no JSON between braces": (b"{no JSON}", "reading JSON"),
    "deep lists": (b"[" * DEEP, NO_OBJECT),
    "deep objects": (b'{"a":' * DEEP, TOO_DEEP),
    "deep headers": (b'{"headers": {"task": ' + b"[" * DEEP + b"]" * DEEP + b"}}", TOO_DEEP),
    "pickle": (b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00}", NO_TEXT),
    "huge number": (b"9" * 1_000_000, NO_OBJECT),
}


@pytest.mark.parametrize(["raw", "reason"], NO_ENVELOPES.values(), ids=NO_ENVELOPES)
def test_bytes_that_are_no_envelope(send, raw, reason):
    sent = send(raw)
    sent.is_logged(UNDECODABLE)
    letter = sent.is_kept(reason)
    assert base64.b64decode(letter["body"]) == raw
    assert letter["content-type"] == "application/data"


def test_a_body_that_is_not_base64(send, template):
    sent = send(envelope(template, body="!!! not base64 !!!") | {"body": "!!! not base64 !!!"})
    sent.is_logged(UNDECODABLE)
    letter = sent.is_kept("the body is not base64")
    assert base64.b64decode(letter["body"]) == sent.raw


# Envelopes without a task.

NO_TASKS = {
    "no header task": dict(headers={"task": ...}),
    "header task null": dict(headers={"task": None}),
    "payload is a map without task": dict(headers={"task": ...}, body={"id": "x"}),
    "payload is a string": dict(headers={"task": ...}, body="text"),
    "payload is null": dict(headers={"task": ...}, body=None),
    "no headers": dict(headers={"task": ...}, properties={"correlation_id": ...}),
}


@pytest.mark.parametrize("changes", NO_TASKS.values(), ids=NO_TASKS)
def test_messages_that_are_no_task(send, template, changes):
    message = envelope(template, **changes)
    sent = send(message)
    sent.is_logged(UNKNOWN)
    letter = sent.is_kept("not a task message")
    assert (letter["headers"], letter["body"]) == (message["headers"], message["body"])


# Envelopes of tasks that cannot be run. Each row: what is changed, what is logged, the exception that is stored, and a
# piece of the reason. The exception is null where there is no id to store it under.

EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
REFUSED = "Refusing to deserialize untrusted content of type"
REFUSALS = {
    "unregistered": (dict(headers={"task": "no.such.task"}), UNREGISTERED, "NotRegistered", "no.such.task"),
    "task is no text": (dict(headers={"task": ["rust.add"]}), UNKNOWN, "InvalidTaskError", "not a task message"),
    "no id": (dict(headers={"id": ...}), INVALID, None, "'id'"),
    "id null": (dict(headers={"id": None}), INVALID, None, "'id'"),
    "id is a map": (dict(headers={"id": {}}), INVALID, None, "'id'"),
    "body is not JSON": (
        dict(raw_body=b"[[1, 2"), UNDECODABLE, "DecodeError", "a comma or the end of the list at byte 6"),
    "body is not UTF-8": (dict(raw_body=b'[["\xff"], {}, {}]'), UNDECODABLE, "DecodeError", NO_TEXT),
    "body has more behind it": (
        dict(raw_body=b"[[], {}, {}] []"), UNDECODABLE, "DecodeError", "the end of the text at byte 13"),
    "body is deep": (dict(raw_body=b"[" * DEEP), UNDECODABLE, "DecodeError", TOO_DEEP),
    "arguments are deep": (
        dict(raw_body=b"[[" + b"[" * DEEP + b"]" * DEEP + b"], {}, {}]"), UNDECODABLE, "DecodeError", TOO_DEEP),
    "unknown type": (
        dict(body=[[{"__type__": "elsewhere", "__value__": 1}], {}, EMBED]), UNDECODABLE, "DecodeError", "elsewhere"),
    "bad datetime": (
        dict(body=[[{"__type__": "datetime", "__value__": "never"}], {}, EMBED]), UNDECODABLE, "DecodeError", "never"),
    "bad uuid": (
        dict(body=[[{"__type__": "uuid", "__value__": {"hex": "zz"}}], {}, EMBED]), UNDECODABLE, "DecodeError", "uuid"),
    "bad base64": (
        dict(body=[[{"__type__": "base64", "__value__": "!"}], {}, EMBED]), UNDECODABLE, "DecodeError", "base64"),
    "unknown compression": (
        dict(headers={"compression": "application/x-zip"}), UNDECODABLE, "DecodeError", "application/x-zip"),
    "not compressed": (
        dict(headers={"compression": "application/x-gzip"}), UNDECODABLE, "DecodeError", "application/x-gzip"),
    "compression is a number": (dict(headers={"compression": 7}), UNDECODABLE, "DecodeError", "of type int"),
    "pickle": (dict(content_type="application/x-python-serialize"), INVALID, "ContentDisallowed", REFUSED),
    "yaml": (dict(content_type="application/x-yaml"), INVALID, "ContentDisallowed", REFUSED),
    "msgpack": (dict(content_type="application/x-msgpack"), INVALID, "ContentDisallowed", REFUSED),
    "unknown content type": (dict(content_type="application/x-novel"), INVALID, "ContentDisallowed", REFUSED),
    "no content type": (dict(content_type=None), INVALID, "InvalidTaskError", "content type"),
    "eta is no time": (dict(headers={"eta": "tomorrow"}), INVALID, "InvalidTaskError", "tomorrow"),
    "eta is a number": (dict(headers={"eta": 1764000000}), INVALID, "InvalidTaskError", "1764000000"),
    "eta is a list": (dict(headers={"eta": []}), INVALID, "InvalidTaskError", "ETA"),
    "eta has a month too many": (dict(headers={"eta": "2026-13-01T00:00:00"}), INVALID, "InvalidTaskError", "2026-13"),
    "expires is no time": (dict(headers={"expires": "tomorrow"}), INVALID, "InvalidTaskError", "tomorrow"),
    "expires is a number": (dict(headers={"expires": 60.5}), INVALID, "InvalidTaskError", "60.5"),
    "eta at the end of time": (
        dict(headers={"eta": "9999-12-31T23:59:59.999999-12:00"}), INVALID, "OverflowError", "9999"),
    "kwargs null": (dict(body=[[1, 2], None, EMBED]), INVALID, "InvalidTaskError", "not a mapping"),
    "kwargs is a list": (dict(body=[[1, 2], [], EMBED]), INVALID, "InvalidTaskError", "not a mapping"),
    "args is a map": (dict(body=[{}, {}, EMBED]), INVALID, "InvalidTaskError", "not a list"),
    "embed is a list": (dict(body=[[1, 2], {}, [1]]), INVALID, "InvalidTaskError", "third item"),
    "body of two": (dict(body=[[1, 2], {}]), INVALID, "InvalidTaskError", "but [[1, 2], {}]"),
    "body of four": (dict(body=[[1, 2], {}, EMBED, None]), INVALID, "InvalidTaskError", "}, None]"),
    "body is a map": (dict(body={"args": [1, 2]}), INVALID, "InvalidTaskError", "but {'args': [1, 2]}"),
    "body is null": (dict(body=None), INVALID, "InvalidTaskError", "but None"),
    "body is empty": (dict(raw_body=b""), INVALID, "InvalidTaskError", "but b''"),
    "v1 kwargs is a list": (
        dict(headers={"task": ...}, body={"task": "rust.add", "id": "1", "args": [1], "kwargs": []}),
        INVALID, "InvalidTaskError", "not a mapping"),
}


@pytest.mark.parametrize(["changes", "logged", "exception", "reason"], REFUSALS.values(), ids=REFUSALS)
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


@pytest.mark.parametrize(["task", "changes", "expected"], ODDITIES.values(), ids=ODDITIES)
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


@pytest.mark.parametrize(["embed", "state"], CONTINUATIONS.values(), ids=CONTINUATIONS)
def test_malformed_continuations_fail_the_task(send, tasks, template, request, embed, state):
    task_id = f"continuation {request.node.callspec.id}"
    send(envelope(template, headers={"id": task_id}, body=[[1, 2], {}, {**EMBED, **embed}]))
    result = tasks.app.AsyncResult(task_id)
    if state == "SUCCESS":
        assert result.get(timeout=SECONDS) == 3
    else:
        assert "signature" in str(tasks.error(result))
    assert result.state == state


def test_a_thousand_of_all_kinds_at_once(tasks, worker, server, template):
    """None is lost and none holds up another: so many dead letters, so many results."""
    bad = [json.dumps(envelope(template, headers={"id": f"bad {n}", "eta": "never"})) for n in range(500)]
    good = [tasks.send("add", n, 1) for n in range(250)]
    server.broker.lpush(QUEUE, *bad, *[b"\xff" * n for n in range(250)])
    good += [tasks.send("add", n, 1) for n in range(250, 500)]
    assert [result.get(timeout=SECONDS) for result in good] == list(range(1, 501))
    letters = [server.dead_letter() for _ in range(750)]
    assert sum(letter["content-type"] == "application/json" for letter in letters) == 500
    assert server.broker.llen(DEAD_LETTERS) == 0
    server.holds_nothing()
    assert worker.is_running()


def test_nothing_stays_unacknowledged(start_worker, app, server):
    """A worker that ends has settled all that it was sent, the malformed too."""
    worker = start_worker("last")
    server.broker.lpush("last", b"not JSON")
    server.dead_letter()
    assert Caller(app, server, "last").call("add", 1, 2) == 3
    server.holds_nothing()
    assert worker.stop() == 0
    assert server.broker.llen("last") == 0


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
