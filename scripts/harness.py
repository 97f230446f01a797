"""What the demo and the benchmarks share: private brokers, workers that do not outlive their starter, builds.

Every process is started in a group of its own and every group is ended when the ``Processes`` block is left, however
it is left. Every wait has an end.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import redis

from ports import free_port
from rabbitmq import Node, VHost

ROOT = Path(__file__).resolve().parent.parent
DJANGO = ROOT / "examples" / "django"
BUILD = ROOT / ".build"


class Failed(Exception):
    """Something that the command needs did not happen; the text says what, and where to look."""


def progress(text: str) -> None:
    print(f"-- {text}", file=sys.stderr, flush=True)


def wait_for(condition, timeout: float, what: str, pause: float = 0.02):
    """The first true value of ``condition()``; raises :class:`Failed` after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {timeout:g} s")
        time.sleep(pause)


def target_directory(manifest: Path) -> Path:
    text = subprocess.run(
        ["cargo", "metadata", "--format-version", "1", "--no-deps", "--manifest-path", manifest],
        check=True, capture_output=True, text=True,
    ).stdout
    return Path(json.loads(text)["target_directory"])


def build_worker() -> Path:
    """The example worker, optimised."""
    progress("building the example worker (release); the first time takes some minutes")
    manifest = ROOT / "Cargo.toml"
    started = time.monotonic()
    subprocess.run(
        ["cargo", "build", "--release", "--locked", "--example", "worker", "--manifest-path", manifest], check=True
    )
    progress(f"built in {time.monotonic() - started:.0f} s")
    return target_directory(manifest) / "release" / "examples" / "worker"


def install_wheels() -> Path:
    """The directory in which the Python package and the example's module of Rust tasks are installed, from their wheels."""
    progress("building the wheels of celeriac and of the example's Rust tasks (optimised); the first time takes some minutes")
    started = time.monotonic()
    # The example is a crate of its own, as a user's is, with the versions that everything else here is built with.
    example = DJANGO / "rust_tasks"
    shutil.copy(ROOT / "Cargo.lock", example)
    wheels, installed = BUILD / "wheels", BUILD / "installed"
    for directory in (wheels, installed):
        shutil.rmtree(directory, ignore_errors=True)
    target = str(target_directory(ROOT / "Cargo.toml"))
    # The example's lock lacks the example itself.
    for project, options in ((ROOT, ["--locked"]), (example, [])):
        subprocess.run(
            [sys.executable, "-m", "maturin", "build", "--profile", "quick", "--skip-auditwheel", "--out", wheels, *options],
            cwd=project, env={**os.environ, "CARGO_TARGET_DIR": target}, check=True, stdout=subprocess.DEVNULL,
        )
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--target", installed, *wheels.glob("*.whl")], check=True)
    progress(f"built in {time.monotonic() - started:.0f} s")
    return installed


def die_with_parent() -> None:
    """In the child, before exec: a starter that is killed outright takes its children with it (Linux only)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


class Processes:
    """Child processes and a directory for their files; leaving the block ends all of them."""

    def __enter__(self) -> Processes:
        self.directory = Path(tempfile.mkdtemp(prefix="celeriac-"))
        self._running: list[subprocess.Popen] = []
        self._nodes: list[Node] = []
        self._signals = {number: signal.signal(number, self._interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
        return self

    @staticmethod
    def _interrupt(number, _frame):
        raise SystemExit(128 + number)

    def __exit__(self, kind, *_rest) -> None:
        # A second Ctrl-C must not keep the rest from being ended.
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        for process in reversed(self._running):
            self.stop(process, patience=5)
        for node in self._nodes:
            node.close()
        for number, handler in self._signals.items():
            signal.signal(number, handler)
        signal.signal(signal.SIGINT, interrupt)
        if kind is None:
            shutil.rmtree(self.directory, ignore_errors=True)
        else:
            print(f"logs are kept in {self.directory}", file=sys.stderr)

    def start(self, name: str, command: list, cwd: Path = ROOT, env: dict | None = None) -> subprocess.Popen:
        """Starts ``command`` with its output in ``<directory>/<name>.log``."""
        log = self.log(name)
        with open(log, "ab") as output:
            process = subprocess.Popen(
                [str(part) for part in command], cwd=cwd, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=die_with_parent,
            )
        process.log = log
        self._running.append(process)
        return process

    def adopt(self, process: subprocess.Popen) -> None:
        """Has a process that was started elsewhere, as the leader of a group, end with the others."""
        self._running.append(process)

    def log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def stop(self, process: subprocess.Popen, patience: float = 15) -> None:
        """SIGTERM, then SIGKILL, to the process and to all of its children."""
        if process not in self._running:
            return
        self._running.remove(process)
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def redis(self, name: str = "redis") -> Redis:
        """A Redis of our own, on a free port, which writes nothing to disk."""
        if not (binary := shutil.which("redis-server")):
            raise Failed("redis-server is not installed: scripts/setup.sh redis")
        port = free_port()
        process = self.start(name, [
            binary, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
            "--dir", self.directory, "--daemonize", "no",
        ])
        server = Redis(port, process)
        wait_for(lambda: server.answers() or require(process, "redis-server"), 10, f"Redis on port {port}")
        return server

    def folders(self) -> Folders:
        """Folders of our own as the broker."""
        return Folders(self.directory / "data")

    def rabbitmq(self, results: Redis) -> RabbitMQ:
        """A RabbitMQ of our own, on a free port."""
        if not shutil.which("erl"):
            raise Failed("RabbitMQ is not installed: scripts/setup.sh rabbitmq")
        node = Node()
        self._nodes.append(node)
        return RabbitMQ(node, results)


def require(process: subprocess.Popen, what: str) -> None:
    """Raises :class:`Failed` with the end of its log if ``process`` has ended."""
    if process.poll() is not None:
        lines = process.log.read_text(errors="replace").splitlines()[-15:]
        raise Failed(f"{what} ended with exit code {process.returncode}:\n    " + "\n    ".join(lines))


def await_log(process: subprocess.Popen, text: str, what: str, timeout: float = 30) -> None:
    """Waits until ``text`` stands in the log of ``process``."""
    def seen() -> bool:
        require(process, what)
        return text in process.log.read_text(errors="replace")

    wait_for(seen, timeout, f"{what}: {text!r} in {process.log}", pause=0.05)


class Redis:
    """A private Redis: broker in db 0, results in db 1."""

    def __init__(self, port: int, process: subprocess.Popen):
        self.port, self.process = port, process
        self.broker_url = f"redis://127.0.0.1:{port}/0"
        self.result_url = f"redis://127.0.0.1:{port}/1"
        self.broker = redis.Redis(port=port, db=0, socket_timeout=120)
        self.results = redis.Redis(port=port, db=1, socket_timeout=120)

    @property
    def env(self) -> dict:
        return {"CELERY_BROKER_URL": self.broker_url, "CELERY_RESULT_BACKEND": self.result_url}

    def answers(self) -> bool:
        try:
            return self.broker.ping()
        except redis.ConnectionError:
            return False


class RabbitMQ:
    """A private RabbitMQ: a vhost, and another one when it is to be empty. Results are in a Redis."""

    def __init__(self, node: Node, results: Redis):
        self.node, self.vhost = node, VHost(node)
        self.results, self.result_url = results.results, results.result_url

    @property
    def broker_url(self) -> str:
        return self.vhost.url

    @property
    def env(self) -> dict:
        return {"CELERY_BROKER_URL": self.broker_url, "CELERY_RESULT_BACKEND": self.result_url}

    def renew(self) -> None:
        """A vhost without any queue, and no results."""
        self.vhost.remove()
        self.vhost = VHost(self.node)
        self.results.flushdb()

    def open_messages(self, queue: str) -> int:
        """Messages that wait, and messages that are delivered and not acknowledged."""
        return sum(self.vhost.depths().get(queue, (0, 0)))


class Folders:
    """Folders as the broker, and one with the results, where the example project looks for them; no server."""

    def __init__(self, data: Path):
        self.data, self.messages, self.stored = data, data / "messages", data / "results"
        self.renew()

    @property
    def env(self) -> dict:
        # What is set for other projects is not for this one.
        return {
            "SHOP_DATA": str(self.data), "CELERY_BROKER_URL": "filesystem://localhost",
            "CELERY_RESULT_BACKEND": f"file://{self.stored}",
        }

    def renew(self) -> None:
        """No message, and no results."""
        shutil.rmtree(self.data, ignore_errors=True)
        for folder in (self.messages, self.data / "control", self.stored):
            folder.mkdir(parents=True)

    def take(self, queue: str) -> str:
        """The one message of a queue."""
        (path,) = self.messages.glob(f"*.{queue}.msg")
        text = path.read_text()
        path.unlink()
        return text

    def put(self, queue: str, texts) -> None:
        """Puts messages into a queue, under names that Kombu gives."""
        began = round(time.monotonic() * 1000)
        for number, text in enumerate(texts):
            (self.messages / f"{began}_{number:08}.{queue}.msg").write_text(text)

    def open_messages(self, queue: str) -> int:
        """Messages that wait, and messages that are claimed and not settled; of those that a stock worker has read no file
        is left."""
        claimed = self.messages.glob(f".celeriac/*/*.{queue}.msg")
        return sum(name.endswith(f".{queue}.msg") for name in os.listdir(self.messages)) + sum(1 for _ in claimed)
