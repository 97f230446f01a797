"""Each step of a task's life: the worker is killed there, or its connection is cut, just before it and just after it.

What a step is shows in what the worker tells Redis; a proxy waits for that. Whatever happens, nothing is lost that the
task's acknowledgement promised to keep, nothing is left over, and what must run once runs once. All of a step's four
faults run beside others, each with a Redis of its own.

On Redis alone: a step is a command here, and where a connection to RabbitMQ breaks between two frames of one is for the
broker to sort out, which takes back all that the channel held. What is lost or told twice over it is asked by
`test_faults.py`, `test_many_faults.py` and `tests/transport_amqp/faults.rs`.
"""

import base64
import concurrent.futures
import dataclasses
import json
import time
import types
from collections.abc import Callable

import pytest
from celery import chain, chord

import faults
from cutting import Proxy, Trap
from support import DEAD_LETTERS

FAULTS = [(how, when) for how in ("killed", "cut") for when in ("before", "after")]
ONCE, MAY_REPEAT = (1, 1), (1, 2)
# What was sent by a task that runs again is sent again; and it may itself be what the worker was at.
MAY_REPEAT_TWICE = (1, 3)
VISIBILITY_TIMEOUT = 2


def said(*needles):
    """A command that has a word with each of these in it."""
    return lambda words: all(any(needle in word for word in words) for needle in needles)


def published(task_id):
    return said(b'"root_id"', b'"id": "%s"' % task_id)


def stored(state, task_id):
    return said(b'"status": "%s"' % state, b'"task_id": "%s"' % task_id)


def script(keys, *needles):
    """A script's call with so many keys."""
    return lambda words: words[0].upper() == b"EVALSHA" and words[2] == b"%d" % keys and said(*needles)(words)


RESERVED = said(b"EVALSHA", b"unacked_index", b"tasks")
ACKNOWLEDGED = said(b"HDEL", b"unacked")
INDEX_CLEARED = said(b"ZREM", b"unacked_index")


class Life:
    """One task, or a few, on a Redis of their own. What a task does shows in the lines that it appends."""

    options = {}

    def __init__(self, folder):
        self.folder = folder
        self.broker = faults.Broker(folder)
        self.app = self.broker.application()
        self.lines = faults.Lines(folder)

    def append(self, label, name="append_late"):
        sig = self.app.signature(f"rust.{name}", (str(self.lines.path), label), immutable=True)
        return sig.set(queue="tasks", task_id=label)

    def s(self, name, *args, task_id):
        return self.app.signature(f"rust.{name}", args).set(queue="tasks", task_id=task_id)

    def states(self, **expected):
        """Waits until these are stored."""
        def all_stored():
            return {task_id: self.app.AsyncResult(task_id).state for task_id in expected} == expected
        faults.eventually(all_stored, lambda: f"{[self.app.AsyncResult(one).state for one in expected]}, {self.left()}")

    def left(self):
        return f"left: {self.broker.left('tasks')}, lines: {self.lines.all()}"

    def runs(self, label):
        return self.lines.all().count(label)


class Chain(Life):
    """One task, then another."""

    labels = ["first", "second"]

    def send(self):
        chain(self.append("first"), self.append("second")).apply_async()

    def ended(self):
        self.states(first="SUCCESS", second="SUCCESS")


class Early(Life):
    """A task that is acknowledged before it runs."""

    labels = ["first"]
    options = {"task_acks_late": False}

    def send(self):
        self.append("first", "append").apply_async()

    def ended(self):
        """Whether it ran is told by its lines."""


class Chord(Life):
    labels = ["one", "two", "body"]

    def send(self):
        chord([self.append("one"), self.append("two")])(self.append("body"))

    def ended(self):
        self.states(one="SUCCESS", two="SUCCESS", body="SUCCESS")


class FailedChord(Life):
    labels = ["one"]

    def send(self):
        body = self.append("body").on_error(self.s("identity", task_id="errback"))
        chord([self.append("one"), self.s("fail", "ValueError", "no", task_id="failed")])(body)

    def ended(self):
        self.states(one="SUCCESS", failed="FAILURE", body="FAILURE", errback="SUCCESS")
        assert self.runs("body") == 0


class Retry(Life):
    """Asks to be run again a second later."""

    labels = ["second"]

    def send(self):
        self.s("flaky", "k", 1, task_id="first").apply_async(link=self.append("second"))

    def ended(self):
        self.states(first="SUCCESS", second="SUCCESS")
        assert self.app.AsyncResult("first").result == 2


class Failure(Life):
    labels = []

    def send(self):
        sig = self.s("fail", "ValueError", "no", task_id="first").on_error(self.s("identity", task_id="errback"))
        chain(sig, self.append("second")).apply_async()

    def ended(self):
        self.states(first="FAILURE", second="FAILURE", errback="SUCCESS")
        assert self.app.AsyncResult("errback").result == "first"
        assert self.runs("second") == 0


class Replacement(Life):
    labels = ["first", "second"]

    def send(self):
        new = json.loads(json.dumps(self.append("first")))
        new["options"].pop("task_id")
        chain(self.s("replace_with", new, task_id="first"), self.append("second")).apply_async()

    def ended(self):
        self.states(first="SUCCESS", second="SUCCESS")


class Held(Life):
    """Waits for its time longer than the visibility timeout."""

    labels = ["first"]

    def send(self):
        self.append("first").apply_async(countdown=1.5 * VISIBILITY_TIMEOUT)

    def ended(self):
        self.states(first="SUCCESS")


class Expired(Life):
    labels = []

    def send(self):
        self.append("first").apply_async(expires=-5)

    def ended(self):
        self.states(first="REVOKED")
        assert self.runs("first") == 0


class Malformed(Life):
    """Bytes that are no message, and a task that nobody knows."""

    labels = []

    def send(self):
        self.broker.client.lpush("tasks", b"no message")
        self.s("nobody", task_id="first").apply_async()

    def ended(self):
        self.states(first="FAILURE")

        def kept():
            letters = [json.loads(letter) for letter in self.broker.client.lrange(DEAD_LETTERS, 0, -1)]
            bodies = [base64.b64decode(letter["body"]) for letter in letters]
            return b"no message" in bodies and any(letter["headers"].get("id") == "first" for letter in letters)

        faults.eventually(kept, "both to be dead letters")


class Forsaken(Life):
    """What another worker had reserved before it died."""

    labels = ["first"]

    def send(self):
        self.append("first").set(queue="elsewhere").apply_async()
        raw = self.broker.client.rpop("elsewhere").decode()
        self.broker.client.hset("unacked", "forsaken", json.dumps([json.loads(raw), "", "tasks"]))
        self.broker.client.zadd("unacked_index", {"forsaken": time.time() - 3600})

    def ended(self):
        self.states(first="SUCCESS")


@dataclasses.dataclass
class Step:
    life: type[Life]
    matches: Callable
    # How often each label may be seen where the worker is killed, and where its connection is cut.
    killed: tuple[int, int] = MAY_REPEAT
    cut: tuple[int, int] = MAY_REPEAT


STEPS = {
    "reserved": Step(Chain, RESERVED, cut=ONCE),
    "started": Step(Chain, stored(b"STARTED", b"first"), MAY_REPEAT_TWICE, ONCE),
    "continuation published": Step(Chain, published(b"second"), MAY_REPEAT_TWICE),
    "result stored": Step(Chain, stored(b"SUCCESS", b"first"), MAY_REPEAT_TWICE, ONCE),
    "acknowledged": Step(Chain, ACKNOWLEDGED, MAY_REPEAT_TWICE, ONCE),
    "out of the index": Step(Chain, INDEX_CLEARED, MAY_REPEAT_TWICE, ONCE),
    "last result stored": Step(Chain, stored(b"SUCCESS", b"second"), MAY_REPEAT_TWICE, ONCE),
    # It begins while Redis is still being told, as under stock Celery: what is killed between the two runs again.
    "acknowledged early": Step(Early, ACKNOWLEDGED, killed=(0, 2), cut=ONCE),
    "reserved, to be acknowledged early": Step(Early, RESERVED, killed=ONCE, cut=ONCE),
    "result stored after an early acknowledgement": Step(Early, stored(b"SUCCESS", b"first"), killed=ONCE, cut=ONCE),
    "part of a chord counted": Step(Chord, script(6, b".j")),
    "claim of a chord held": Step(Chord, script(2, b".c")),
    "body published": Step(Chord, published(b"body"), MAY_REPEAT_TWICE),
    "chord forgotten": Step(Chord, script(5, b".c"), MAY_REPEAT_TWICE),
    "member of a chord acknowledged": Step(Chord, ACKNOWLEDGED, cut=ONCE),
    "failed member stored": Step(FailedChord, stored(b"FAILURE", b"failed")),
    "failure of the body stored": Step(FailedChord, stored(b"FAILURE", b"body")),
    "errback of a chord published": Step(FailedChord, published(b"errback")),
    "retry published": Step(Retry, published(b"first")),
    "retry stored": Step(Retry, stored(b"RETRY", b"first")),
    "retried message acknowledged": Step(Retry, ACKNOWLEDGED),
    "failure stored": Step(Failure, stored(b"FAILURE", b"first")),
    "rest of the chain failed": Step(Failure, stored(b"FAILURE", b"second")),
    "errback published": Step(Failure, published(b"errback")),
    "failed message acknowledged": Step(Failure, ACKNOWLEDGED),
    "replacement published": Step(Replacement, published(b"first")),
    "held message renewed": Step(Held, said(b"ZADD", b"unacked_index", b"XX"), killed=ONCE, cut=ONCE),
    "expired message stored": Step(Expired, stored(b"REVOKED", b"first")),
    "dead letter written": Step(Malformed, said(DEAD_LETTERS.encode())),
    "unregistered task stored": Step(Malformed, stored(b"FAILURE", b"first")),
    "forsaken message restored": Step(Forsaken, said(b"forsaken")),
}


class Trial:
    """One fault at one step: done in a thread, told to a test."""

    def __init__(self, step, how, when, folder):
        self.step, self.how, self.when, self.folder = step, how, when, folder

    def run(self):
        life = self.step.life(self.folder)
        trap = Trap(self.step.matches, self.when == "after")
        proxy = Proxy(life.broker.port, trap)
        urls = types.SimpleNamespace(
            kind="redis",
            url=f"redis://127.0.0.1:{proxy.port}/0", result_url=f"redis://127.0.0.1:{proxy.port}/1")
        try:
            settings = {"task_acks_late": True, "task_track_started": True, **life.options}
            worker = faults.RustWorker(urls, self.folder, "tasks", faults.options(VISIBILITY_TIMEOUT), **settings)
            if self.how == "killed":
                trap.act = worker.kill
            trap.is_armed = True
            life.send()
            assert trap.sprang.wait(faults.DEADLINE), f"never came there, {life.left()}\n{worker.output.text()}"
            if self.how == "killed":
                worker = faults.RustWorker(life.broker, self.folder, "tasks", faults.options(VISIBILITY_TIMEOUT), **settings)
            self.all_is_done(life)
            # It finishes what runs, which may have been acknowledged before.
            assert worker.is_running() and worker.stop() == 0, worker.output.text()
            least, most = getattr(self.step, self.how)
            for label in life.labels:
                assert least <= life.runs(label) <= most, f"{label} ran {life.runs(label)} times"
        finally:
            proxy.close()
            faults.end(life.broker, life.app)

    def all_is_done(self, life):
        faults.eventually(lambda: life.broker.left("tasks") == (0, 0, 0), life.left)
        life.ended()
        faults.eventually(lambda: life.broker.left("tasks") == (0, 0, 0), life.left)


@pytest.fixture(scope="module")
def trials(request, tmp_path_factory):
    """All that was asked for, under way."""
    # Most of their time they wait: for a visibility timeout, or for a dead worker's claim.
    with concurrent.futures.ThreadPoolExecutor(14) as threads:
        wanted = [item.callspec.params for item in request.session.items if item.module is request.module]
        # Whoever completes a chord whose body a dead worker may be publishing waits for that one's claim: those first.
        wanted.sort(key=lambda one: STEPS[one["name"]].life not in (Chord, FailedChord))
        yield {
            (one["name"], *one["fault"]): threads.submit(
                Trial(STEPS[one["name"]], *one["fault"], tmp_path_factory.mktemp("step")).run)
            for one in wanted
        }


@pytest.mark.parametrize("fault", FAULTS, ids=" ".join)
@pytest.mark.parametrize("name", STEPS)
def test_a_step_that_fails(trials, name, fault):
    trials[(name, *fault)].result()
