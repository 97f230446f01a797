"""The workers that are compared, each as its users run it: default options but for the queue and the concurrency."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from harness import BUILD, ROOT, Processes, RabbitMQ, Redis, build_worker, progress
from ports import free_port

QUEUE = "bench"
CELERIAC, PREFORK, THREADS, CRATE = "celeriac", "celery_prefork", "celery_threads", "celery_crate"
EVENTS, WATCHED, PYTHON = "celeriac_events", "celeriac_http", "celeriac_python"


@dataclass
class Peer:
    key: str
    name: str
    command: list
    # How many messages a run begins with; more are taken until a run is long enough to trust.
    messages: int
    stores_results: bool = True
    cwd: Path = ROOT
    # Hashes that hold what is reserved and not acknowledged.
    unacked: list[str] = field(default_factory=lambda: ["unacked"])
    env: dict[str, str] = field(default_factory=dict)

    def start(self, processes: Processes, server: Redis | RabbitMQ):
        command = [part.format(url=server.broker_url) if isinstance(part, str) else part for part in self.command]
        return processes.start(self.key, command, cwd=self.cwd, env=server.env | self.env)

    def open_messages(self, server: Redis) -> int:
        """Messages that wait or are reserved."""
        pipe = server.broker.pipeline(transaction=False)
        pipe.llen(QUEUE)
        for name in self.unacked:
            pipe.hlen(name)
        return sum(pipe.execute())


def all_peers() -> list[Peer]:
    python = ["-A", "stock_app", "worker", "-Q", QUEUE, "-c", "2"]
    stock = [sys.executable, "-m", "celery", *python]
    benches = ROOT / "benches"
    celeriac = [build_worker(), "worker", "-Q", QUEUE]
    return [
        Peer(CELERIAC, "Celeriac", celeriac, 300_000),
        Peer(EVENTS, "Celeriac, -E (events)", [*celeriac, "-E"], 200_000),
        Peer(WATCHED, "Celeriac, --http (metrics)", [*celeriac, "--http", f"127.0.0.1:{free_port()}"], 300_000),
        Peer(
            PYTHON, "Celeriac, Python tasks -c 2", [sys.executable, "-m", "celeriac", *python], 40_000, cwd=benches,
            env={"PYTHONPATH": str(build_extension())},
        ),
        Peer(PREFORK, "Celery 5.7, prefork -c 2", stock, 8_000, cwd=benches),
        Peer(THREADS, "Celery 5.7, threads -c 2", [*stock, "-P", "threads"], 8_000, cwd=benches),
        Peer(
            CRATE, "crate `celery` 0.5.5", [build_peer("celery-crate"), "{url}", QUEUE, "100"], 30_000,
            stores_results=False, unacked=[f"_celery.{QUEUE}_process_map"],
        ),
    ]


def build_extension() -> Path:
    """The folder of the Python package, with its extension in it, optimised, and its bytecode, as `pip install` makes it.

    Its peers are installed, and have theirs; what runs from a tree would be compiled at each start where Python is told to
    write none (PYTHONDONTWRITEBYTECODE).
    """
    progress("building the Python package's extension (release)")
    subprocess.run([ROOT / "scripts" / "extension.sh", "--release"], check=True)
    subprocess.run([sys.executable, "-m", "compileall", "-q", ROOT / "python" / "celeriac"], check=True)
    return ROOT / "python"


def build_peer(name: str) -> Path:
    """The program in benches/peers/<name>, optimised."""
    progress(f"building the peer {name} (release)")
    manifest = ROOT / "benches" / "peers" / name / "Cargo.toml"
    target = BUILD / "peers"
    subprocess.run(
        ["cargo", "build", "--release", "--locked", "--manifest-path", manifest, "--target-dir", target], check=True
    )
    return target / "release" / f"{name}-peer"
