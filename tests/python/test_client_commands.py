"""The commands that ask and steer workers, beside stock Celery's for the same broker and the same workers.

Each runs twice, as `celery` and as ours: what they print and their exit codes are the same, but for `DIFFERENCES`.
"""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
import uuid

import pytest

from command_lines import Both
from faults import RustWorker, StockWorker, answering, eventually
from support import EXAMPLE_WORKER, SECONDS, Process

STOCK, RUST = "stock@test", "rust@test"
TO_STOCK = ["-d", STOCK, "-t", str(SECONDS)]
TO_RUST = ["-d", RUST, "-t", str(SECONDS)]

# Where ours says something else, or ends with another code, and why.
DIFFERENCES = {
    "errors": "one line on standard error, `celeriac: error: …`; click's has a usage before it, or Python a traceback",
    "inspect ping extra": "arguments that a command does not take are refused; Celery drops them without a word",
    "inspect --list": "the same commands; what they are for is said in words of our own",
    "control autoscale ten": "2, and what autoscale takes; Celery ends with Python's ValueError and 1",
    "control terminate KILL": "no ids; Celery takes the signal for an id, too",
    "list bindings": "sorted; on RabbitMQ both refuse, Celery for want of pyrabbit",
    "call": "argsrepr is a tuple's and ignore_result is false, as of .delay(); a task called by name has null and a list's",
    "events": "without --dump it is refused; the line of an event that lacks a field is left out, where Celery ends",
    "report": "about this program, not about Python's",
    "result of a failure": "the exception in one line, with code 1; Celery's is a traceback with code 1",
    "status, no broker": "69 at once; Celery tries again for a while first",
}


# A command of a list.
COMMAND = re.compile(r"^  (\w+)", re.MULTILINE)


@pytest.fixture(scope="module")
def both(each_broker):
    both = Both(each_broker)
    yield both
    both.end()


@pytest.fixture(scope="module")
def stock_worker(each_broker):
    worker = StockWorker(each_broker, "stock", {}, "-P", "threads", "-n", STOCK, "-E")
    try:
        with each_broker.application() as app:
            answering(app, STOCK)
        yield worker
    finally:
        worker.kill()


@pytest.fixture(scope="module")
def rust_worker(each_broker, folder):
    worker = RustWorker(each_broker, folder, "rust", {}, "-n", RUST)
    yield worker
    worker.kill()


def test_purge_of_the_projects_own_queues(both):
    """First: what is sent to a queue makes it known to the process that stands for stock's."""
    assert both.same("purge", "-f").out == "No messages purged from 1 queue.\n"


def test_status(both, stock_worker):
    assert both.same("status", *TO_STOCK).out == f"->  {STOCK}: OK\n\n1 node online.\n"
    both.same("-q", "status", *TO_STOCK)
    both.same("status", "--json", *TO_STOCK)
    nobody = both.same("status", "-d", "nobody@test", "-t", "0.2", code=69)
    assert nobody.err == "celeriac: error: No nodes replied within time constraint\n"


@pytest.mark.parametrize("command", [
    "ping", "active", "reserved", "scheduled", "revoked", "registered", "registered rate_limit", "active_queues",
    "conf", "report", "query_task nobody",
])
def test_inspect(both, stock_worker, command):
    both.same("inspect", *TO_STOCK, *command.split())
    both.same("inspect", "-j", *TO_STOCK, *command.split())


def test_inspect_what_changes(both, stock_worker):
    numbers = r"\d+(\.\d+)?"
    both.same("inspect", *TO_STOCK, "clock", mask=numbers)
    both.same("inspect", *TO_STOCK, "stats", mask=numbers)
    both.same("-q", "inspect", *TO_STOCK, "stats", "--json", mask=numbers)
    both.same("inspect", "ping", "-d", "nobody@test", "-t", "0.2", code=69)


@pytest.mark.parametrize("command", [
    "rate_limit rust.add 10/m", "rate_limit rust.add abc", "rate_limit rust.nobody 1/s", "rate_limit rust.add",
    "time_limit rust.add 10 20", "time_limit rust.add 5.5", "add_consumer more", "cancel_consumer more",
    "autoscale 3 1", "enable_events", "disable_events", "heartbeat", "revoke an-id", "terminate KILL an-id",
    "pool_restart",
])
def test_control(both, stock_worker, command):
    # Each changes something: the first to come is to find what the second finds.
    both.stock("control", *TO_STOCK, *command.split())
    both.same("control", *TO_STOCK, *command.split())
    both.same("control", "--json", *TO_STOCK, *command.split())


def test_the_command_line_is_checked(both, stock_worker):
    unknown = both.same("inspect", "nope", code=2)
    assert "Command nope not recognized. Available inspect commands: active, active_queues, clock" in unknown.err
    both.same("control", "ping", code=2)
    both.same("inspect", "-t", "soon", "ping", code=2)
    assert both.ours("inspect", *TO_STOCK, "ping", "extra").code == 2
    assert both.ours("control", *TO_STOCK, "autoscale", "ten").code == 2
    for kind in ("inspect", "control"):
        stock, ours = (run(kind, "--list").out for run in (both.stock, both.ours))
        assert len(COMMAND.findall(ours)) > 10 and COMMAND.findall(ours) == COMMAND.findall(stock)


def test_call_and_result(both, stock_worker):
    options = ["rust.add", "--args", "[1, 2]", "--kwargs", '{"z": 4}', "--queue", "stock", "--expires", "60"]
    sent = both.ours("call", *options)
    assert sent.code == 0 and uuid.UUID(sent.out.strip()), sent.err
    assert both.same("result", sent.out.strip()).out == "7\n"
    assert both.same("result", sent.out.strip(), "--traceback").out == "\n"
    later = both.ours("call", "rust.echo", "-a", '["ä"]', "--countdown", "0.2", "--serializer", "json", "--queue", "stock")
    assert both.same("result", later.out.strip()).out == "[['ä'], {}]\n"
    failed = both.ours("call", "rust.fail", "-a", '["KeyError", "no"]', "--queue", "stock").out.strip()
    ours = both.ours("result", failed)
    assert (ours.code, ours.out, ours.err) == (1, "", "celeriac: error: KeyError('no')\n")
    assert both.stock("result", failed).code == 1
    assert both.same("result", failed, "--traceback").out.startswith("Traceback (most recent call last):")
    both.same("call", "rust.add", "--args", "{}", code=2)
    both.same("call", "rust.add", "--kwargs", "nonsense", code=2)
    both.same("call", "rust.add", "--eta", "soon", code=2)


def test_what_is_called_is_what_celery_calls(both, each_broker):
    """But for ids, times and who it was."""
    times = ["--eta", "2030-01-01T00:00:00", "--expires", "2031-01-01T00:00:00+00:00"]
    arguments = ["call", "rust.add", "-a", '[1, {"b": null}]', "-k", '{"z": 2.5}', "--queue", "called", *times]
    for run in (both.stock, both.ours):
        assert run(*arguments).code == 0
    stock, ours = each_broker.waiting("called")
    each_broker.clear()
    differing = {"id", "root_id", "origin", "argsrepr", "ignore_result"}
    headers = [{name: value for name, value in one["headers"].items() if name not in differing} for one in (stock, ours)]
    assert headers[0] == headers[1]
    assert stock["body"] == ours["body"] and stock["content-type"] == ours["content-type"]


def test_purge(both, each_broker):
    def fill():
        for queue in ("first", "second", "second"):
            assert both.stock("call", "rust.noop", "--queue", queue).code == 0

    fill()
    stock = both.stock("purge", "-f", "-Q", "first,second")
    fill()
    refused = both.ours("purge", "-Q", "first,second", answer="n\n")
    asked = both.stock("purge", "-Q", "first,second", answer="n\n")
    assert refused.code == asked.code == 1 and "Aborted!" in refused.err
    # What is typed is shown by a terminal alone; click's runner repeats it.
    assert refused.out.strip() == asked.out.replace("[y/N]: n", "[y/N]:").strip()
    ours = both.ours("purge", "-f", "-Q", "first,second")
    assert ours.out == stock.out == "Purged 3 messages from 2 known task queues.\n"
    both.same("purge", "-f", "-Q", "first,second", "-X", "second")
    both.same("purge", "-Q", "first", "-X", "first")


def test_list_bindings(both, each_broker):
    if each_broker.kind != "redis":
        ours = both.ours("list", "bindings")
        assert ours.code == 1 and "cannot list bindings" in ours.err
        assert both.stock("list", "bindings").code != 0
        return
    stock, ours = (run("list", "bindings") for run in (both.stock, both.ours))
    assert (ours.code, sorted(ours.out.splitlines())) == (0, sorted(map(str.rstrip, stock.out.splitlines())))


def test_events_are_dumped_alike(both, stock_worker):
    """Both hear what the stock worker sends, and write the same lines of it, but for when each heard it."""
    both.ours("control", *TO_STOCK, "enable_events")
    stock = Process([sys.executable, "-m", "celery", *both.urls, "events", "--dump"], {"PYTHONUNBUFFERED": "1"})
    ours = Process([EXAMPLE_WORKER, *both.urls, "events", "--dump"])
    try:
        for dump in (stock, ours):
            dump.output.wait_for("-> evdump: starting capture...")

        def have_heard():
            """Whoever is subscribed hears it: it is asked for until both have."""
            both.ours("control", *TO_STOCK, "heartbeat")
            return all("heartbeat" in dump.output.text() for dump in (stock, ours))

        eventually(have_heard, lambda: stock.output.text() + ours.output.text())
        good = both.ours("call", "rust.add", "-a", "[1, 2]", "--queue", "stock").out.strip()
        bad = both.ours("call", "rust.fail", "-a", '["KeyError", "it\'s"]', "--queue", "stock").out.strip()

        def lines(dump):
            for fate in (f"task succeeded: rust.add\\({good}", f"task failed: rust.fail\\({bad}"):
                dump.output.wait_for(fate)
            text = re.sub(r"local_received=[\d.]+", "local_received=…", dump.output.text())
            return [line for line in text.splitlines() if good in line or bad in line]

        assert lines(ours) == lines(stock)
        assert len(lines(ours)) == 6, lines(ours)
    finally:
        stock.kill()
        ours.kill()
    assert both.ours("events").code == 2


def test_top_prints_one_frame_of_the_whole_fleet(both, stock_worker, rust_worker):
    frame = None

    def has_both():
        """Who answers late is not in it: it is asked for until both are."""
        nonlocal frame
        frame = both.ours("top", "--once", "-t", "2")
        assert frame.code == 0, frame.err
        return all(re.search(rf"{node} +online ", frame.out) for node in (STOCK, RUST))

    eventually(has_both, lambda: frame.out)
    assert "\x1b" not in frame.out
    nowhere = both.ours("top")
    assert (nowhere.code, nowhere.out) == (2, "") and "is no terminal" in nowhere.err


@pytest.mark.parametrize("key", [b"q", b"\x03"])
def test_top_gives_the_terminal_back(both, stock_worker, key):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
    before = termios.tcgetattr(theirs)
    top = subprocess.Popen([EXAMPLE_WORKER, *both.urls, "top"], stdin=theirs, stdout=theirs, stderr=theirs)
    seen = b""

    def wait_for(text):
        nonlocal seen
        end = time.monotonic() + SECONDS
        while text not in seen:
            assert time.monotonic() < end and select.select([ours], [], [], SECONDS)[0], seen
            seen += os.read(ours, 65536)

    try:
        wait_for(b"online")  # A cell that stays as it was is not written again: names may be written in pieces.
        assert b"\x1b[?1049h" in seen and termios.tcgetattr(theirs) != before
        os.write(ours, key)
        wait_for(b"\x1b[?1049l")
        assert top.wait(SECONDS) == 0
        assert termios.tcgetattr(theirs) == before
    finally:
        top.kill()
        top.wait()
    os.close(ours)
    os.close(theirs)


def test_report_and_what_is_refused(both):
    report = both.ours("report")
    assert report.code == 0 and "software -> celeriac:" in report.out and "settings -> transport:" in report.out
    for command, instead in {"shell": "celery shell", "amqp": "rabbitmqctl"}.items():
        refused = both.ours(command)
        assert refused.code == 2 and instead in refused.err and refused.err.count("\n") == 1


def test_no_broker_is_69(both):
    for command in (["status"], ["inspect", "ping"], ["control", "heartbeat"]):
        ended = both.ours(*command, urls=["-b", "redis://127.0.0.1:1/0"])
        assert ended.code == 69 and "cannot connect to" in ended.err, ended.err


def test_our_own_worker_answers_both(both, rust_worker):
    both.same("status", *TO_RUST)
    both.same("inspect", *TO_RUST, "ping")
    both.same("inspect", "-j", *TO_RUST, "ping")
    both.same("control", *TO_RUST, "rate_limit", "rust.add", "10/m")
    both.same("control", *TO_RUST, "revoke", "an-id")
    both.same("control", "-j", *TO_RUST, "time_limit", "rust.nobody", "1", "2")
    for command in ("active", "reserved", "scheduled", "revoked", "registered", "active_queues", "conf", "query_task nobody"):
        both.same("inspect", *TO_RUST, *command.split())
        both.same("inspect", "-j", *TO_RUST, *command.split())
    both.same("inspect", *TO_RUST, "stats", mask=r"\d+(\.\d+)?")


def test_both_workers_are_seen(both, stock_worker, rust_worker):
    ended = None

    def are_seen():
        """Who answers late is not seen: it is asked until both are."""
        nonlocal ended
        ended = both.ours("status", "-t", "1")
        return ended.code == 0 and ended.out.endswith("\n2 nodes online.\n")

    eventually(are_seen, lambda: ended.out + ended.err)
    assert sorted(ended.out.splitlines()[:2]) == [f"->  {RUST}: OK", f"->  {STOCK}: OK"]


def test_asking_leaves_nothing_behind(both, each_broker, stock_worker):
    if each_broker.kind == "redis":
        both.ours("inspect", "ping", *TO_STOCK)
        left = [key.decode() for key in each_broker.client.keys("*pidbox*")]
        assert not [key for key in left if key.endswith(".reply.celery.pidbox")], left
        members = each_broker.client.smembers("_kombu.binding.reply.celery.pidbox")
        assert len(members) == 0, members
