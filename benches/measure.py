"""The measurements: throughput, round trip, memory, start. Each watches Redis and the kernel, never a worker's word."""

from __future__ import annotations

import itertools
import socket
import statistics
import time
from pathlib import Path

from envelopes import copies, release, stage, template
from harness import Failed, Processes, Redis, require, wait_for
from peers import QUEUE, Peer

# A run shorter than this is taken again with more messages.
LONG_ENOUGH = 5.0
MOST_MESSAGES = 1_500_000
RUN_TIMEOUT = 300.0


def throughput(processes: Processes, server: Redis, peer: Peer, envelope: str, messages: int, stored: bool) -> dict:
    """Messages a second from the first one taken to the last one done, all of them queued before the first is taken.

    The worker is up and has run one task. Done means: nothing waits, nothing is unacknowledged, and where results are
    stored each of them is in the result database.
    """
    server.broker.flushall()
    process = peer.start(processes, server)
    try:
        run_one(server, peer, envelope, process)
        idle = memory(process.pid)
        server.results.flushdb()
        stage(server.broker, copies(envelope, messages))
        release(server.broker, QUEUE)
        wait_for(lambda: server.broker.llen(QUEUE) < messages, 30, f"{peer.name}: the first message", pause=0.0005)
        started = time.perf_counter()

        def finished() -> bool:
            require(process, peer.name)
            return peer.open_messages(server) == 0 and (not stored or server.results.dbsize() >= messages)

        wait_for(finished, RUN_TIMEOUT, f"{peer.name}: {messages:,} messages", pause=0.01)
        seconds = time.perf_counter() - started
        return {"messages": messages, "seconds": seconds, "per_second": messages / seconds,
                "memory_idle": idle, "memory": memory(process.pid)}
    finally:
        processes.stop(process)


def long_enough(run, messages: int) -> tuple[int, dict]:
    """The number of messages for which ``run(messages)`` lasts long enough, and what that run measured."""
    while True:
        result = run(messages)
        if result["seconds"] >= LONG_ENOUGH or messages >= MOST_MESSAGES:
            return messages, result
        messages = min(MOST_MESSAGES, int(messages * 1.3 * LONG_ENOUGH / max(result["seconds"], 0.05)))


def rates(results: dict, key: str, base: str) -> str:
    """For each kind of results: how many a second, and how that is beside ``base``, as cells of a table."""
    cells = []
    for kind in ("ignored", "stored"):
        found, beside = results[kind].get(key), results[kind].get(base)
        cells.append(f"{found['per_second']:>10,.0f}" if found else f"{'–':>10}")
        cells.append(f"{found['per_second'] / beside['per_second']:>10.1f}" if found and beside else f"{'–':>10}")
    return " ".join(cells)


def run_one(server: Redis, peer: Peer, envelope: str, process) -> None:
    """One task, to its end."""
    for _, text in copies(envelope, 1):
        server.broker.lpush(QUEUE, text)
    wait_for(lambda: require(process, peer.name) or peer.open_messages(server) == 0, 60, f"{peer.name}: its first task")
    if peer.stores_results and '"ignore_result": true' not in envelope:
        wait_for(lambda: server.results.dbsize() > 0, 30, f"{peer.name}: its first result")


def memory(pid: int) -> dict:
    """Resident and proportional memory of a process and all of its children, in MB."""
    members = [memory_of(member) for member in family(pid)]
    return {name: sum(member[name] for member in members) for name in ("rss_mb", "pss_mb")}


def memory_of(pid: int) -> dict:
    """Resident and proportional memory of one process, in MB; none if it has just ended."""
    found = {"rss_mb": 0.0, "pss_mb": 0.0}
    for line in text(f"/proc/{pid}/smaps_rollup").splitlines():
        name, _, value = line.partition(":")
        if name in ("Rss", "Pss"):
            found[f"{name.lower()}_mb"] = int(value.split()[0]) / 1024
    return found


def family(pid: int) -> list[int]:
    children = text(f"/proc/{pid}/task/{pid}/children").split()
    return [pid, *itertools.chain.from_iterable(family(int(child)) for child in children)]


def text(path: str) -> str:
    """What the kernel tells of a process; nothing if that has ended."""
    try:
        return Path(path).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def start_to_first_task(processes: Processes, server: Redis, peer: Peer, envelope: str) -> float:
    """Seconds from the start of the process until a task that was waiting is done."""
    server.broker.flushall()
    for _, text in copies(envelope, 1):
        server.broker.lpush(QUEUE, text)
    started = time.perf_counter()
    process = peer.start(processes, server)

    def done() -> bool:
        if peer.stores_results:
            return server.results.dbsize() > 0
        return peer.open_messages(server) == 0

    try:
        wait_for(lambda: require(process, peer.name) or done(), 60, f"{peer.name}: its first task", pause=0.0005)
        return time.perf_counter() - started
    finally:
        processes.stop(process)


def round_trip(processes: Processes, server: Redis, peer: Peer, noop, count: int) -> dict:
    """One call at a time: ``.delay().get()``, the worker's share of it, and the rest, which is the Python client's.

    The worker's share is seen by a client that is only two sockets: the time from writing the LPUSH to reading the
    published result, less the time from writing a PUBLISH to reading it back with no worker between. It still holds
    Redis's work for the worker's commands and all of the worker's own network: more than the worker's own time, never
    less.
    """
    server.broker.flushall()
    process = peer.start(processes, server)
    try:
        envelope = template(noop, server.broker, "bench.template")
        run_one(server, peer, envelope, process)
        bare = BareClient(server.port)
        for _, text in copies(envelope, 50):
            bare.call(text)
        calls = percentiles([bare.call(text) for _, text in copies(envelope, count)])
        hops = percentiles([bare.hop() for _ in range(count)])
        bare.close()
        client = percentiles([delay_get(noop) for _ in range(count)])
        share = {name: calls[name] - hops["p50"] for name in calls}
        return {"delay_get_ms": client, "bare_client_ms": calls, "empty_hop_ms": hops, "worker_share_ms": share}
    finally:
        processes.stop(process)


def delay_get(noop) -> float:
    started = time.perf_counter()
    noop.apply_async(queue=QUEUE).get(timeout=10)
    return time.perf_counter() - started


def percentiles(seconds: list[float]) -> dict:
    hundredths = statistics.quantiles(seconds, n=100)
    return {"p50": hundredths[49] * 1000, "p99": hundredths[98] * 1000}


class BareClient:
    """Two sockets: one writes a message, the other reads what is published. Nothing that takes time."""

    CHANNEL = b"bench.hop"

    def __init__(self, port: int):
        self.sender, self.reader = (socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(2))
        for each in (self.sender, self.reader):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader.sendall(command(b"PSUBSCRIBE", b"celery-task-meta-*") + command(b"SUBSCRIBE", self.CHANNEL))
        self.read_until(b"\r\n" + self.CHANNEL + b"\r\n:2\r\n")

    def call(self, envelope: str) -> float:
        """From the LPUSH to the published result of a task that succeeded."""
        return self.time(command(b"LPUSH", QUEUE.encode(), envelope.encode()), b"SUCCESS")

    def hop(self) -> float:
        """From a PUBLISH to what was published: the way through Redis, without any worker."""
        return self.time(command(b"PUBLISH", self.CHANNEL, b"SUCCESS" + b" " * 200), b"SUCCESS")

    def time(self, request: bytes, awaited: bytes) -> float:
        started = time.perf_counter()
        self.sender.sendall(request)
        self.read_until(awaited)
        seconds = time.perf_counter() - started
        self.sender.recv(64)
        return seconds

    def read_until(self, awaited: bytes) -> None:
        seen = b""
        while awaited not in seen:
            if not (more := self.reader.recv(65536)):
                raise Failed("Redis closed the benchmark's connection")
            seen += more

    def close(self) -> None:
        self.sender.close()
        self.reader.close()


def command(*parts: bytes) -> bytes:
    """A Redis command in bytes."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
