"""How soon a worker answers while it runs 10,000 tasks a second and tells of each: `inspect ping`, and its probes.

Who sends, who pings and who probes are processes of their own: none of them waits for another's turn in Python.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

from envelopes import copies, template  # noqa: E402
from harness import Failed, Processes, build_worker, progress, require, wait_for  # noqa: E402
from measure import percentiles  # noqa: E402
from ports import free_port  # noqa: E402

QUEUE = "under-load"
NODE = "loaded@bench"
RATE = 10_000
# A batch is sent so many times a second.
BATCHES = 100
PROBES_A_SECOND = 100
# What is slower than this does not count as an answer.
PING_TIMEOUT = 1.0


def measure_under_load(processes: Processes, server, noop, seconds: float) -> dict:
    """Latencies in milliseconds, how many pings were not answered in time, and how many tasks a second there were."""
    progress(f"answers at {RATE:,} tasks a second")
    server.broker.flushall()
    envelope = processes.directory / "under-load.json"
    envelope.write_text(template(noop, server.broker, QUEUE, ignore_result=True))
    address = f"127.0.0.1:{free_port()}"
    command = [build_worker(), "worker", "-Q", QUEUE, "-n", NODE, "-E", "--http", address]
    worker = processes.start("under-load", command, env=server.env)
    wait_for(lambda: require(worker, "the worker") or is_ready(address), 30, "the worker")
    feeder = role(server, "feed", server.broker_url, envelope, seconds + 2)
    # What comes first finds caches cold and connections unmade.
    time.sleep(1)
    before, began = done(address), time.perf_counter()
    others = {name: role(server, name, address, seconds) for name in ("ping", "probe")}
    found = {name: answer(process) for name, process in others.items()}
    rate = (done(address) - before) / (time.perf_counter() - began)
    answer(feeder)
    require(worker, "the worker")
    processes.stop(worker)
    pings = [milliseconds for milliseconds in found["ping"] if milliseconds is not None]
    if len(pings) < 2:
        raise Failed("no ping was answered")
    return {
        "rate": rate, "pings": len(found["ping"]), "unanswered": len(found["ping"]) - len(pings),
        "ping_ms": {**percentiles([each / 1000 for each in pings]), "longest": max(pings)},
        "livez_ms": {**percentiles([each / 1000 for each in found["probe"]]), "longest": max(found["probe"])},
    }


def rows(found: dict):
    """The promises: text, value, goal, whether the goal is the least, unit."""
    at = f"at {RATE:,} tasks/s"
    yield f"{at}: tasks that were run each second", found["rate"], 0.95 * RATE, True, "/s"
    yield f"{at}: pings without an answer within 1 s", found["unanswered"], 0, False, ""
    yield f"{at}: `inspect ping`, the slowest", found["ping_ms"]["longest"], 1000 * PING_TIMEOUT, False, " ms"
    yield f"{at}: /livez, p99", found["livez_ms"]["p99"], 5, False, " ms"


def role(server, name: str, *arguments) -> subprocess.Popen:
    command = [sys.executable, __file__, name, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **server.env})


def answer(process: subprocess.Popen):
    out, _ = process.communicate(timeout=120)
    if process.returncode:
        raise Failed(f"{process.args[2]} ended with {process.returncode}")
    return json.loads(out)


def is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/readyz", timeout=10):
            return True
    except OSError:
        return False


def done(address: str) -> float:
    """How many tasks have succeeded."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("celery_task_succeeded_total{"))


def feed(url: str, envelope: str, seconds: str) -> int:
    """Sends at an even rate; what was late is made up for."""
    import redis

    broker, total = redis.Redis.from_url(url), int(RATE * float(seconds))
    texts, began = (text for _, text in copies(Path(envelope).read_text(), total)), time.perf_counter()
    for number in range(total * BATCHES // RATE):
        time.sleep(max(0.0, began + number / BATCHES - time.perf_counter()))
        broker.lpush(QUEUE, *(next(texts) for _ in range(RATE // BATCHES)))
    return total


def ping(_address: str, seconds: str) -> list:
    """How long each `inspect ping` took; None: it was not answered."""
    from stock_app import app

    inspect = app.control.inspect(destination=[NODE], timeout=PING_TIMEOUT, limit=1)
    inspect.ping()
    found, end = [], time.perf_counter() + float(seconds)
    while time.perf_counter() < end:
        began = time.perf_counter()
        answered = inspect.ping()
        found.append((time.perf_counter() - began) * 1000 if answered else None)
        time.sleep(0.05)
    return found


def probe(address: str, seconds: str) -> list:
    """How long each /livez took, with a connection of its own."""
    host, _, port = address.rpartition(":")
    found, end = [], time.perf_counter() + float(seconds)
    while time.perf_counter() < end:
        began = time.perf_counter()
        with socket.create_connection((host, int(port)), timeout=10) as stream:
            stream.sendall(b"GET /livez HTTP/1.1\r\nHost: bench\r\n\r\n")
            said = stream.recv(4096)
        found.append((time.perf_counter() - began) * 1000)
        if not said.startswith(b"HTTP/1.1 200 "):
            sys.exit(f"/livez says {said!r}")
        time.sleep(1 / PROBES_A_SECOND)
    return found


if __name__ == "__main__":
    print(json.dumps({"feed": feed, "ping": ping, "probe": probe}[sys.argv[1]](*sys.argv[2:])))
