"""Other workers of Python tasks beside ours, on Redis: dramatiq, taskiq, arq and rq, two processes each.

Each has its own client, formats and ways to wait, so each fills its queue itself (peers/python/*_peer.py says how it is
configured, and why), and each is counted in its own structures. All take a message out for good when its task has ended.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

import measure
from harness import BUILD, ROOT, Processes, Redis, require, wait_for
from peers import PYTHON

HOME = ROOT / "benches" / "peers" / "python"


@dataclass
class PythonPeer:
    key: str
    name: str
    python: str
    # Each is started once: those that know no processes are started twice.
    commands: list[list[str]]
    # Messages that wait or run.
    open_messages: Callable
    messages: int

    @property
    def bin(self):
        return BUILD / self.python / "bin"

    def fill(self, server: Redis, count: int) -> None:
        command = [self.bin / "python", f"{self.key}_peer.py", str(count)]
        subprocess.run(command, cwd=HOME, env=server.env, check=True)
        assert self.open_messages(server.broker) == count, f"{self.name} has not sent {count:,} messages"

    def start(self, processes: Processes, server: Redis) -> list:
        env = server.env | {"PYTHONPATH": str(HOME)}
        return [
            processes.start(f"{self.key}-{number}", [self.bin / command[0], *(part.format(url=server.broker_url) for part
                            in command[1:])], cwd=HOME, env=env)
            for number, command in enumerate(self.commands)
        ]


def of_stream(broker) -> int:
    group = broker.xinfo_groups("taskiq")[0]
    return group["pending"] + group["lag"]


def of_rq(broker) -> int:
    return broker.llen("rq:queue:default") + broker.zcard("rq:wip:default")


def all_python_peers() -> list[PythonPeer]:
    dramatiq = ["dramatiq", "-p", "2", "dramatiq_peer:broker"]
    taskiq = ["taskiq", "worker", "--workers", "2", "--log-level", "WARNING", "--max-prefetch", "100", "taskiq_peer:broker"]
    arq = ["arq", "--custom-log-dict", "arq_peer.quiet", "arq_peer.WorkerSettings"]
    # One that does not fork for each message: the fastest that rq has.
    rq = ["rq", "worker-pool", "-q", "-n", "2", "-w", "rq.worker.SimpleWorker", "-u", "{url}", "default"]
    return [
        PythonPeer("dramatiq", "dramatiq 2.2.1, -p 2", "venv-peers", [dramatiq],
                   lambda broker: broker.hlen("dramatiq:default.msgs"), 8_000),
        PythonPeer("taskiq", "taskiq 0.13.0, --workers 2", "venv-peers", [taskiq], of_stream, 12_000),
        PythonPeer("arq", "arq 0.28.0, two of it", "venv-peers-arq", [arq] * 2,
                   lambda broker: broker.zcard("arq:queue"), 6_000),
        PythonPeer("rq", "rq 3.0.0, -n 2", "venv-peers", [rq], of_rq, 3_000),
    ]


def throughput(processes: Processes, server: Redis, peer: PythonPeer, messages: int) -> dict:
    """Messages a second from the first one that is seen to be taken or done to the last one done; all of them are in the
    queue before the processes start."""
    server.broker.flushall()
    peer.fill(server, messages)
    workers = peer.start(processes, server)
    try:
        def remaining() -> int:
            for worker in workers:
                require(worker, peer.name)
            return peer.open_messages(server.broker)

        wait_for(lambda: remaining() < messages, 30, f"{peer.name}: the first message", pause=0.0005)
        started = time.perf_counter()
        wait_for(lambda: remaining() == 0, measure.RUN_TIMEOUT, f"{peer.name}: {messages:,} messages", pause=0.01)
        seconds = time.perf_counter() - started
        return {"messages": messages, "seconds": seconds, "per_second": messages / seconds}
    finally:
        for worker in workers:
            processes.stop(worker)


def rows(rate) -> list[tuple]:
    """What was measured beside what is asked for; ``rate`` knows each by its key."""
    ours = rate(PYTHON)
    return [
        (f"Python tasks, results ignored, beside {peer.key}", ours and rate(peer.key) and ours / rate(peer.key), 1)
        for peer in all_python_peers()
    ]
