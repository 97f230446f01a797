"""A child's line to the worker, seen from the child: answers that come late, a line that a task has closed, and what is
handed over it."""

import fcntl
import os
import resource
import select
import signal
import socket
import struct
import sys
import tempfile
import threading
import zlib

import pytest
from celery import Celery, Task, signals
from celery.app.task import Context
from celery.app import trace
from celery.backends.filesystem import FilesystemBackend
from kombu import serialization
from kombu.utils import json as kombu_json

from support import ROOT, SECONDS

sys.path.insert(0, str(ROOT / "python"))

from celeriac import backend, nursery  # noqa: E402
from celeriac._celeriac import Channel  # noqa: E402
from celeriac.child import Child  # noqa: E402
from celeriac.limits import Limits  # noqa: E402

pytestmark = pytest.mark.only("redis", "no broker is asked")

QUIT = struct.pack("<IB", 1, ord("q"))


class Interrupted(Exception):
    """What a soft limit raises, as it were."""


@pytest.fixture
def both():
    """The worker's end, and the child's with its descriptor."""
    ours, theirs = socket.socketpair()
    with tempfile.TemporaryFile() as file:
        # Nobody has claimed a call.
        file.truncate(8)
        claims = os.dup(file.fileno())
    descriptor = theirs.detach()
    with ours:
        yield ours, Channel(descriptor, claims), descriptor


@pytest.fixture
def soon(both):
    """Has what waits then raise, once the worker has been told something.

    The signal comes again and again until it is heard of: one that comes right before the wait does not end it.
    """
    worker, _, _ = both
    threads, due = [], []

    def interrupt(*_):
        signal.setitimer(signal.ITIMER_REAL, 0)
        if due:
            due.pop()
            raise Interrupted

    def when_told():
        select.select([worker], [], [], SECONDS)
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)

    def soon():
        due.append(True)
        threads.append(threading.Thread(target=when_told, daemon=True))
        threads[-1].start()

    before = signal.signal(signal.SIGALRM, interrupt)
    yield soon
    due.clear()
    # One that nothing was told yet waits no longer.
    worker.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def call(body, content_type="application/json", **request):
    """A call as the worker gives it."""
    def text(given):
        given = given.encode() if isinstance(given, str) else given
        return struct.pack("<I", len(given)) + given

    texts = [text(given) for given in ("t", "id", content_type, "utf-8", body)]
    pairs = [text(name) + b"s" + text(given) for name, given in request.items()]
    fields = b"".join([*texts, b"m", struct.pack("<I", len(pairs)), *pairs])
    return struct.pack("<IB", 1 + len(fields), ord("j")) + fields


def answer(number, is_stored):
    return struct.pack("<IBQ?", 10, ord("s"), number, is_stored)


def store(channel):
    return channel.store("id", "SUCCESS", b"{}", True)


def test_a_late_answer_is_no_answer_to_what_is_asked_next(both, soon):
    worker, channel, _ = both
    with pytest.raises(Interrupted):
        soon()
        store(channel)
    worker.sendall(answer(1, False) + answer(2, True))
    assert store(channel) is True


def test_a_late_answer_ends_nothing(both, soon):
    worker, channel, _ = both
    with pytest.raises(Interrupted):
        soon()
        store(channel)
    worker.sendall(answer(1, True))
    with pytest.raises(Interrupted):
        soon()
        channel.next()
    worker.sendall(QUIT)
    assert channel.next() is None


def test_what_is_opened_in_place_of_the_line_is_left_alone(both, tmp_path):
    worker, channel, descriptor = both
    os.close(descriptor)
    assert worker.recv(1) == b""
    opened = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.dup2(opened, descriptor)
    channel.success("None", 0.0)
    with pytest.raises(ConnectionError, match="closed the line"):
        channel.next()
    channel.close()
    assert (tmp_path / "file").read_bytes() == b""


def test_a_nursery_hears_over_descriptors_of_any_number():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    ours, theirs = socket.socketpair()
    high = socket.socket(fileno=fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD, 1500))
    with ours, theirs, high:
        served = nursery.Nursery(None, "host", Limits(), None, high)
        ours.sendall(nursery.ASK.pack(17, nursery.PING, 0, 0))
        assert served.wait()
        assert ours.recv(64) == struct.pack("<IBQ", 9, nursery.PING, 0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_nursery_says_that_a_signal_has_come():
    ours, theirs = socket.socketpair()
    come, before = [], signal.signal(signal.SIGUSR2, lambda number, _: come.append(number))
    ours.settimeout(SECONDS)
    with ours, theirs:
        served = nursery.Nursery(None, "host", Limits(), None, theirs)
        served.children[os.getpid()] = 7
        # Of what there is not, too: whoever waits for it waits no more.
        for number, index in [(signal.SIGUSR2, 7), (99, 7), (signal.SIGUSR2, 8)]:
            assert served.obey(nursery.SIGNAL, index, number)
            assert ours.recv(64) == struct.pack("<IBQ", 9, nursery.SIGNAL, index)
            assert come == [signal.SIGUSR2]
    signal.signal(signal.SIGUSR2, before)


@pytest.fixture
def app(both, tmp_path):
    """An app whose results are handed over the line."""
    _, channel, _ = both
    (tmp_path / "results").mkdir()
    app = Celery("line", backend=f"file://{tmp_path}/results", set_as_current=False)
    backend.hand_over(app, channel)
    yield app
    backend.take_back()


def is_silent(worker):
    """Whether nothing has come over the line."""
    worker.setblocking(False)
    try:
        return not worker.recv(1)
    except BlockingIOError:
        return True


class Ending(Child):
    """One whose tasks end at once."""

    def trace(self, *_):
        self.channel.success("None", 0.0)


def kinds(worker, frames):
    """The kinds of so many frames that a child says."""
    said = worker.makefile("rb")
    found = []
    for _ in range(frames):
        length, kind = struct.unpack("<IB", said.read(5))
        said.read(length - 1)
        found.append(chr(kind))
    return "".join(found)


PLAIN = b"[[], {}, {}]"
HANGING = {
    "a type of the project's": (b'[[{"__type__": "slow", "__value__": 1}], {}, {}]', "application/json", {}),
    "the same with escapes": (b'[[{"\\u005f_type__": "slow", "__value__": 1}], {}, {}]', "application/json", {}),
    "the same compressed": (
        zlib.compress(b'[[{"__type__": "slow", "__value__": 1}], {}, {}]'), "application/json",
        {"compression": "application/x-gzip"},
    ),
    "a serializer of the project's": (b"slow", "application/x-slow", {}),
}


@pytest.mark.parametrize("side", HANGING)
def test_what_has_ended_is_told_though_the_next_body_is_never_read(both, monkeypatch, side):
    worker, channel, _ = both
    worker.settimeout(SECONDS)
    has_begun, may_end = threading.Event(), threading.Event()

    def slow(_):
        has_begun.set()
        may_end.wait()
        return [[], {}, {}]

    monkeypatch.setattr(trace, "_localized", [{}, {"application/json", "application/x-slow"}, "host"])
    monkeypatch.setitem(kombu_json._decoders, "slow", slow)
    serialization.register("slow", None, slow, "application/x-slow", "utf-8")
    body, content_type, request = HANGING[side]
    child = threading.Thread(target=lambda: Ending(None, channel, Limits()).work(), daemon=True)
    worker.sendall(call(PLAIN) + call(PLAIN) + call(body, content_type, **request) + QUIT)
    child.start()
    try:
        assert kinds(worker, 6) == "raeaed"
        # Who would read it is looked up after that is said.
        assert has_begun.wait(SECONDS)
        assert is_silent(worker), "the third is read, and has not begun"
    finally:
        may_end.set()
        serialization.unregister("slow")
    worker.settimeout(SECONDS)
    child.join(SECONDS)
    assert kinds(worker, 2) == "ae"


def test_what_is_read_at_once_costs_no_word_of_its_own(both):
    child = Ending.__new__(Ending)
    assert child.is_read_at_once({}, PLAIN, "application/json")
    long = b'[["%s"], {}, {}]' % (b"x" * (64 << 10))
    for body, content_type, request in [*HANGING.values(), (long, "application/json", {})]:
        assert not child.is_read_at_once(request, body, content_type), body[:80]


class Heeding(Task):
    def on_success(self, *_):
        pass


class Returning(Task):
    def after_return(self, *_):
        pass


def listen(**_):
    pass


def connected(signal, sender=None):
    signal.connect(listen, sender=sender, weak=False)
    return lambda: signal.disconnect(listen, sender=sender)


HEEDED = {
    "no hooks": (Task, None, False), "on_success": (Heeding, None, True), "after_return": (Returning, None, True),
    "task_success": (Task, signals.task_success, True), "task_postrun": (Task, signals.task_postrun, True),
    "task_prerun": (Task, signals.task_prerun, False),
}


@pytest.mark.parametrize("side", HEEDED)
def test_a_success_is_stored_before_anything_of_the_project_is_called(app, both, soon, side):
    worker, _, _ = both
    base, signal_, is_heeded = HEEDED[side]
    task = app.task(listen, name="line.task", base=base)
    forget = connected(signal_) if signal_ else lambda: None
    try:
        request = Context(id="id", task=task.name)
        if is_heeded:
            with pytest.raises(Interrupted):
                soon()
                app.backend.mark_as_done("id", 1, request)
        else:
            app.backend.mark_as_done("id", 1, request)
        # What nobody waits for goes with the end of the task.
        assert is_silent(worker) == (not is_heeded)
    finally:
        forget()


def test_a_failure_is_stored_before_errbacks_are_called(app, both, soon):
    called = []
    app.backend._call_task_errbacks = lambda *_: called.append(_)
    with pytest.raises(Interrupted):
        soon()
        app.backend.mark_as_failure("id", KeyError("x"), request=Context(id="id", task="t", errbacks=["an errback"]))
    assert not called and not is_silent(both[0])


def test_what_is_stored_for_no_task_is_stored_at_once(app, both, soon):
    with pytest.raises(Interrupted):
        soon()
        app.backend.store_result("other", 1, "SUCCESS")
    assert not is_silent(both[0])


def test_what_a_task_forks_stores_for_itself(app, both, tmp_path):
    forked = os.fork()
    if not forked:
        try:
            app.backend.store_result("forked", 1, "PROGRESS")
        finally:
            os._exit(0)
    os.waitpid(forked, 0)
    assert is_silent(both[0])
    assert app.backend.get_state("forked") == "PROGRESS"


def test_a_tasks_own_backend_is_its_own(app, both, tmp_path):
    (tmp_path / "own").mkdir()
    own = FilesystemBackend(app=app, url=f"file://{tmp_path}/own")
    own.store_result("id", 1, "SUCCESS")
    assert is_silent(both[0])
    assert own.get_state("id") == "SUCCESS" and app.backend.get_state("id") == "PENDING"
