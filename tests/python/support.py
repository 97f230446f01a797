"""A private Redis, workers that end with the tests, and what a worker logged: all waited for by signals, not by time."""

import ctypes
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import weakref

import redis

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.append(str(ROOT / "scripts"))
from ports import Port, free_port

SECONDS = 60  # Nothing that is waited for takes near as long; a wait that ends here is a failure.
DEAD_LETTERS = "celeriac.dead-letters"
DEATH = "x-celeriac-death"  # The header that says why a message is a dead letter.
EXAMPLE_WORKER = os.environ.get("CELERIAC_WORKER") or ROOT / "target" / "debug" / "examples" / "worker"


def run(env, *arguments, input=None):
    """What Python prints with these arguments, in this environment beside ours."""
    command, env = [sys.executable, *arguments], {**os.environ, **env}
    done = subprocess.run(command, env=env, input=input, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Output:
    """What a process writes, line by line, for whoever waits for a line."""

    def __init__(self, stream):
        self._lines = []
        self._ended = False
        self._changed = threading.Condition()
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream):
        for line in stream:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def mark(self):
        """Where the output ends now."""
        with self._changed:
            return len(self._lines)

    def text(self, since=0):
        with self._changed:
            return "".join(self._lines[since:])

    def whole(self):
        """All that was written, when nobody can write more: a process that has ended may not have been read to its end."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended, SECONDS)
        assert self._ended, f"somebody can still write after this:\n{self.text()}"
        return self.text()

    def wait_for(self, pattern, since=0, timeout=SECONDS):
        """The first match of the pattern in what was written since the mark."""
        found = None

        def seen():
            nonlocal found
            found = re.search(pattern, "".join(self._lines[since:]))
            return found or self._ended

        with self._changed:
            self._changed.wait_for(seen, timeout)
        assert found, f"{pattern!r} was not logged:\n{self.text(since)}"
        return found


def environment():
    """The variables of this process, which pytest changes while threads of a test start others."""
    while True:
        try:
            return dict(os.environ)
        except (KeyError, RuntimeError):
            # One was removed meanwhile.
            pass


class Process:
    """A process whose output is read, and that ends when the tests do, however they do."""

    _known, _lock = weakref.WeakSet(), threading.Lock()

    def __init__(self, command, env=None):
        self._process = subprocess.Popen(
            [str(part) for part in command], env={**environment(), **(env or {})}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            preexec_fn=lambda: ctypes.CDLL(None).prctl(1, signal.SIGKILL),
        )
        self.name = " ".join([pathlib.Path(str(command[0])).name, *map(str, command[1:])])
        self.output = Output(self._process.stdout)
        self.is_stopped = False
        with self._lock:
            self._known.add(self)

    @classmethod
    def running(cls):
        """Those that are, by process id."""
        with cls._lock:
            known = list(cls._known)
        return sorted((process for process in known if process.is_running()), key=lambda process: process.pid)

    def is_running(self):
        return self._process.poll() is None

    def stop(self, by=signal.SIGTERM):
        """Ends it as a service manager would, or with another signal; returns its exit code."""
        self.is_stopped = True
        self._process.send_signal(by)
        try:
            return self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError("it did not end by itself:\n" + self.output.text()) from None

    def terminate(self):
        """Asks it to end, and waits for nothing."""
        self._process.terminate()

    @property
    def pid(self):
        return self._process.pid

    def kill(self):
        self.is_stopped = True
        self._process.kill()
        self._process.wait()


def stop_beat(beat):
    """Ends a beat of ours or of Celery's, this one while it waits: what asks it to end within a call of redis-py is lost.

    There the `SystemExit` of its handler (`celery.apps.beat.Beat.install_sync_handler`) closes the connection, whose
    reader then raises an error of its own instead (`redis._parsers.socket`), which is logged as one of sending.
    """
    if " celery " in beat.name:
        beat.output.wait_for("beat: Waking up", since=beat.output.mark())
    return beat.stop()


class Redis(Process):
    """A Redis of our own that writes nothing to disk: broker in database 0, results in 1."""

    kind = "redis"
    # What is no message at all, for `broadcast`.
    NO_COMMANDS = [b"", b"\xff\x00", b"{}", b"[]"]

    def __init__(self, folder):
        self._own_port = Port()
        self.port = self._own_port.number
        options = ["--port", self.port, "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        super().__init__(["redis-server", *options])
        self.output.wait_for("Ready to accept connections")
        self.broker_url, self.result_url = (f"redis://127.0.0.1:{self.port}/{db}" for db in (0, 1))
        self.broker, self.results = (redis.Redis(port=self.port, db=db, socket_timeout=2 * SECONDS) for db in (0, 1))

    def pop(self, queue, timeout=SECONDS):
        """The oldest message of the queue as its bytes, waited for."""
        popped = self.broker.brpop([queue], timeout=timeout)
        assert popped, f"nothing came into {queue}"
        return popped[1]

    def push(self, queue, *messages):
        """Puts bytes, or envelopes, into the queue as they are."""
        raw = [message if isinstance(message, (bytes, str)) else json.dumps(message) for message in messages]
        self.broker.lpush(queue, *raw)

    def take(self, queue, timeout=SECONDS):
        """The oldest message of the queue as its envelope, waited for."""
        return json.loads(self.pop(queue, timeout))

    def length(self, queue):
        """How many messages wait, of all priorities."""
        return sum(self.broker.llen(queue + step) for step in ["", "\x06\x163", "\x06\x166", "\x06\x169"])

    def waiting(self, queue):
        """The envelopes in the queue, the next one first."""
        return [json.loads(raw) for raw in reversed(self.broker.lrange(queue, 0, -1))]

    def held(self):
        """How many messages are reserved and not settled."""
        return self.broker.hlen("unacked")

    def forget_reserved(self):
        """Throws away what is reserved: nobody is there any more who would settle it."""
        self.broker.delete("unacked", "unacked_index")

    def forget(self, queue):
        """Throws away what waits in it."""
        self.broker.delete(*(queue + step for step in ["", "\x06\x163", "\x06\x166", "\x06\x169"]))

    def broadcast(self, exchange, message):
        """Says it to everybody who listens to the exchange, of whom there is one at least."""
        raw = message if isinstance(message, bytes) else json.dumps(message)
        assert self.broker.publish(f"/0.{exchange}", raw) >= 1

    def cut(self):
        """Breaks every connection; how many there were."""
        return self.broker.execute_command("CLIENT", "KILL", "TYPE", "normal")

    def holds_nothing(self):
        """Waits until no message is registered as reserved: settlements are written in batches, after the results."""
        deadline = time.monotonic() + SECONDS
        while (self.broker.hlen("unacked"), self.broker.zcard("unacked_index")) != (0, 0):
            assert time.monotonic() < deadline, f"reserved and not settled: {self.broker.hgetall('unacked')}"
            time.sleep(0.01)

    def dead_letter(self):
        """The oldest dead letter's envelope."""
        return self.take(DEAD_LETTERS)


class Worker(Process):
    """The example worker, ready."""

    def __init__(self, server, queues, folder, options=(), **settings):
        config = pathlib.Path(folder) / f"{queues.replace(',', '-')}.toml"
        config.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))
        arguments = ["-b", server.broker_url, "--result-backend", server.result_url, "--config", config]
        super().__init__([EXAMPLE_WORKER, *arguments, "worker", "-l", "info", "-Q", queues, *options])
        self.output.wait_for(r"ready\.")

    def mark(self):
        return self.output.mark()

    def wait_for(self, pattern, since=0):
        return self.output.wait_for(pattern, since)
