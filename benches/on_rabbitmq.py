"""The same no-ops with RabbitMQ as the broker: throughput with results ignored, and with results in Redis.

The limit is a consumer on the same client library that looks at no message and only acknowledges.
"""

from __future__ import annotations

import time

from kombu import Connection

import measure
from copies import multiply
from harness import Processes, RabbitMQ, require, wait_for
from peers import CELERIAC, CRATE, PREFORK, PYTHON, QUEUE, THREADS, Peer, build_peer

LIMIT = "rabbitmq_alone"
LIMIT_NAME = "a consumer that only acks"
# With results in Redis: the commonest pairing, and its commonest workers.
STORED = (CELERIAC, PYTHON, PREFORK)
# Messages of a first run for who is fast: RabbitMQ takes them in more slowly than it hands them out.
FIRST = 160_000
SLOW = (PYTHON, PREFORK, THREADS)


def first_count(peer: Peer) -> int:
    return peer.messages if peer.key in SLOW else FIRST


def limit() -> Peer:
    """With as many messages ahead as the worker takes: 250 handlers, four for each."""
    command = [build_peer("rabbitmq"), "{url}", QUEUE, "1000"]
    return Peer(LIMIT, LIMIT_NAME, command, FIRST, stores_results=False)


def throughput(processes: Processes, server: RabbitMQ, peer: Peer, noop, messages: int, stored: bool) -> dict:
    """Messages a second from the first one taken to the last one done.

    All of them are in the queue, and confirmed, before the worker starts. Done means: nothing waits, nothing is
    unacknowledged, and where results are stored each of them is in the result database.
    """
    server.renew()
    with Connection(server.broker_url) as connection:
        noop.apply_async(queue=QUEUE, connection=connection, ignore_result=not stored)
    multiply(server.vhost, QUEUE, messages)
    process = peer.start(processes, server)
    try:
        taken = lambda: require(process, peer.name) or server.vhost.ready(QUEUE) < messages
        wait_for(taken, 30, f"{peer.name}: the first message", pause=0.0005)
        started = time.perf_counter()

        def finished() -> bool:
            require(process, peer.name)
            return server.open_messages(QUEUE) == 0 and (not stored or server.results.dbsize() >= messages)

        wait_for(finished, measure.RUN_TIMEOUT, f"{peer.name}: {messages:,} messages", pause=0.01)
        seconds = time.perf_counter() - started
        return {"messages": messages, "seconds": seconds, "per_second": messages / seconds,
                "memory": measure.memory(process.pid)}
    finally:
        processes.stop(process)


def ratios(results: dict) -> list[tuple]:
    """What was measured beside what is asked for: text, value, goal."""
    def over(kind: str, key: str, ours: str = CELERIAC):
        ours, theirs = results[kind].get(ours), results[kind].get(key)
        return ours and theirs and ours["per_second"] / theirs["per_second"]

    return [
        ("RabbitMQ, ignored, beside stock prefork", over("ignored", PREFORK), 12),
        ("RabbitMQ, ignored, beside crate `celery`", over("ignored", CRATE), 1),
        ("RabbitMQ, ignored, beside acking alone", over("ignored", LIMIT), 0.5),
        ("RabbitMQ, results in Redis, beside prefork", over("stored", PREFORK), 10),
        ("RabbitMQ, Python tasks, ignored, beside stock", over("ignored", PREFORK, PYTHON), 4),
    ]


def show(results: dict, names: dict) -> None:
    print(f"\n{'RabbitMQ: no-ops a second':<26} {'ignored':>10} {'÷ prefork':>10} {'in Redis':>10} {'÷ prefork':>10} "
          f"{'after MB':>9}")
    for key in results["ignored"]:
        print(f"{names[key]:<26} {measure.rates(results, key, PREFORK)} "
              f"{results['ignored'][key]['memory']['rss_mb']:>9.1f}")
