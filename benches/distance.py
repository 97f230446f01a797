"""A Redis that is far away: the same server behind the proxy peers/distance.rs."""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path

import redis

from harness import BUILD, Processes, Redis, wait_for
from ports import free_port

SOURCE = Path(__file__).parent / "peers" / "distance.rs"


def build() -> Path:
    BUILD.mkdir(exist_ok=True)
    binary = BUILD / "distance"
    subprocess.run(["rustc", "--edition", "2024", "-O", "-o", binary, SOURCE], check=True)
    return binary


def away(processes: Processes, server: Redis, milliseconds: float) -> Redis:
    """The same server for who connects to it by its address: so much away, to it and back."""
    far, port = copy.copy(server), free_port()
    processes.start(f"distance-{milliseconds:g}", [build(), port, server.port, milliseconds / 2])
    far.broker_url, far.result_url = (f"redis://127.0.0.1:{port}/{db}" for db in (0, 1))

    def answers() -> bool:
        try:
            return redis.Redis(port=port, socket_timeout=5).ping()
        except redis.ConnectionError:
            return False

    wait_for(answers, 10, f"the proxy that is {milliseconds:g} ms long")
    return far
