"""A child's line to the worker, seen from the child: answers that come late, and a line that a task has closed."""

import fcntl
import os
import resource
import signal
import socket
import struct
import sys
import tempfile

import pytest

from support import ROOT

sys.path.insert(0, str(ROOT / "python"))

from celeriac import nursery  # noqa: E402
from celeriac._celeriac import Channel  # noqa: E402
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
def soon():
    """Has what waits then raise."""
    def interrupt(*_):
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    yield lambda: signal.setitimer(signal.ITIMER_REAL, 0.05)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def answer(number, is_stored):
    return struct.pack("<IBQ?", 10, ord("s"), number, is_stored)


def store(channel):
    return channel.store("id", "SUCCESS", b"{}", True)


def test_a_late_answer_is_no_answer_to_what_is_asked_next(both, soon):
    worker, channel, _ = both
    soon()
    with pytest.raises(Interrupted):
        store(channel)
    worker.sendall(answer(1, False) + answer(2, True))
    assert store(channel) is True


def test_a_late_answer_ends_nothing(both, soon):
    worker, channel, _ = both
    soon()
    with pytest.raises(Interrupted):
        store(channel)
    worker.sendall(answer(1, True))
    soon()
    with pytest.raises(Interrupted):
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
