"""Tasks' lives for the suites of fault steps, and what is done to them: one fault at one step of one life.

Whatever happens, nothing is lost that the task's acknowledgement promised to keep, nothing is left over, and what must
run once runs once. All of a step's four faults run beside others, each with a broker of its own.
"""

import base64
import concurrent.futures
import dataclasses
import json
import types
from collections.abc import Callable

import pytest
from celery import chain, chord

import faults
from cutting import Trap
from support import DEAD_LETTERS

FAULTS = [(how, when) for how in ("killed", "cut") for when in ("before", "after")]
ONCE, MAY_REPEAT = (1, 1), (1, 2)
# What was sent by a task that runs again is sent again; and it may itself be what the worker was at.
MAY_REPEAT_TWICE = (1, 3)
VISIBILITY_TIMEOUT = 2
# Renewed a few times, also where it was taken up seconds late.
HELD = 4 * VISIBILITY_TIMEOUT


def said(*needles):
    """A command that has a word with each of these in it."""
    return lambda words: all(any(needle in word for word in words) for needle in needles)


def stored(state, task_id):
    return said(b'"status": "%s"' % state, b'"task_id": "%s"' % task_id)


def script(keys, *needles):
    """A script's call with so many keys."""
    return lambda words: words[0].upper() == b"EVALSHA" and words[2] == b"%d" % keys and said(*needles)(words)


class Place:
    """A broker of a trial's own, and how a worker comes to it through proxies."""

    def __init__(self, broker):
        self.broker, self.app = broker, broker.application()
        self.proxies = []

    def urls(self, proxy, result_proxy):
        """Those of the worker that is to come to harm."""
        self.proxies = [proxy, result_proxy]
        url = self.broker.url.replace(f":{self.port}/", f":{proxy.port}/")
        result_url = f"redis://127.0.0.1:{result_proxy.port}/1"
        return types.SimpleNamespace(kind=self.broker.kind, url=url, result_url=result_url)

    def close(self):
        for proxy in self.proxies:
            proxy.close()
        faults.end(self.broker, self.app)


class Life:
    """One task, or a few, at a place of their own. What a task does shows in the lines that it appends."""

    # Settings of its workers.
    options = {}
    # Where its worker's connection is cut in any case, before the fault.
    cut_first = None

    def __init__(self, place, folder, how):
        self.how = how
        self.place, self.broker, self.app = place, place.broker, place.app
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

    def all_is_done(self):
        self.nothing_is_left()
        self.ended()
        self.nothing_is_left()

    def nothing_is_left(self):
        faults.eventually(lambda: not any(self.place.left()), self.left, pause=0.05)

    def left(self):
        return f"left: {self.place.left()}, lines: {self.lines.all()}"

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
    """Waits for its time longer than Redis's visibility timeout."""

    labels = ["first"]

    def send(self):
        self.append("first").apply_async(countdown=HELD)

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
        self.broker.push("tasks", self.place.NO_MESSAGE)
        self.s("nobody", task_id="first").apply_async()

    def ended(self):
        self.states(first="FAILURE")

        def kept():
            letters = self.broker.waiting(DEAD_LETTERS)
            bodies = [base64.b64decode(letter["body"]) for letter in letters]
            return b"no message" in bodies and any(letter["headers"].get("id") == "first" for letter in letters)

        faults.eventually(kept, "both to be dead letters")


@dataclasses.dataclass
class Step:
    life: type[Life]
    matches: Callable
    # How often each label may be seen where the worker is killed, and where its connection is cut.
    killed: tuple[int, int] = MAY_REPEAT
    cut: tuple[int, int] = MAY_REPEAT
    # Where it makes a difference that the server has done it: the same for what happens after the step.
    killed_after: tuple[int, int] | None = None
    cut_after: tuple[int, int] | None = None

    def runs(self, how, when):
        return when == "after" and getattr(self, f"{how}_after") or getattr(self, how)


class Trial:
    """One fault at one step: done in a thread, told to a test."""

    def __init__(self, place, step, how, when, folder):
        self.new_place, self.step, self.how, self.when, self.folder = place, step, how, when, folder

    def run(self):
        place = self.new_place(self.folder)
        life = self.step.life(place, self.folder, self.how)
        trap = Trap(self.step.matches, self.when == "after", first=life.cut_first)
        settings = {"task_acks_late": True, "task_track_started": True, **life.options}

        def start(urls):
            return faults.RustWorker(urls, self.folder, "tasks", faults.options(VISIBILITY_TIMEOUT), **settings)

        try:
            worker = start(place.behind(trap))
            if self.how == "killed":
                trap.act = worker.kill
            trap.is_armed = True
            life.send()
            assert trap.sprang.wait(faults.DEADLINE), f"never came there, {life.left()}\n{worker.output.text()}"
            if self.how == "killed":
                worker = start(place.broker)
            life.all_is_done()
            # It finishes what runs, which may have been acknowledged before.
            assert worker.is_running() and worker.stop() == 0, worker.output.text()
            least, most = self.step.runs(self.how, self.when)
            for label in life.labels:
                assert least <= life.runs(label) <= most, f"{label}: {life.left()}\n{worker.output.text()}"
        finally:
            place.close()


@pytest.fixture(scope="module")
def trials(request, tmp_path_factory):
    """All that was asked for of a module's `STEPS`, under way, each at a `Place` of its own."""
    place, steps = request.module.Place, request.module.STEPS
    # Most of their time they wait: for a visibility timeout, or for a dead worker's claim.
    with concurrent.futures.ThreadPoolExecutor(14) as threads:
        wanted = [item.callspec.params for item in request.session.items if item.module is request.module]
        # Whoever completes a chord whose body a dead worker may be publishing waits for that one's claim: those first.
        wanted.sort(key=lambda one: not issubclass(steps[one["name"]].life, (Chord, FailedChord)))
        yield {
            (one["name"], *one["fault"]): threads.submit(
                Trial(place, steps[one["name"]], *one["fault"], tmp_path_factory.mktemp("step")).run)
            for one in wanted
        }
