"""Messages that nobody should send, as real bytes in the queue: what is logged, stored and kept, and that work goes on."""

import base64
import json

import pytest
from celery.exceptions import NotRegistered

from client import Caller
from malformed import EMBED, NO_ENVELOPES, NO_TASKS, REFUSALS, UNDECODABLE, UNKNOWN, envelope
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


@pytest.mark.parametrize("changes", NO_TASKS.values(), ids=NO_TASKS)
def test_messages_that_are_no_task(send, template, changes):
    message = envelope(template, **changes)
    sent = send(message)
    sent.is_logged(UNKNOWN)
    letter = sent.is_kept("not a task message")
    assert (letter["headers"], letter["body"]) == (message["headers"], message["body"])


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
