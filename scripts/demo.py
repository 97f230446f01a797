"""`make demo`: a Django project calls tasks in Rust and in Python, which one worker runs.

    scripts/demo.py [filesystem|redis|amqp]

Takes folders as the broker, or starts a private Redis, and for amqp a private RabbitMQ as well; migrates a database of its
own, starts the worker, runs `manage.py demo`, and then measures no-ops there and on a stock Celery worker. Ends by itself,
and with an exit code other than 0 if anything is wrong.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from copies import multiply
from envelopes import STAGING, copies, release, stage, template
from harness import (
    DJANGO, Failed, Folders, Processes, RabbitMQ, Redis, await_log, install_wheels, progress, require, wait_for,
)

MESSAGES = 20_000
# For each message a stock worker reads the names of all that are in the folder, so its time grows with their square.
MESSAGES_IN_FOLDERS = 2_000
# A stock worker takes about a thousand a second; it is given this long, and what it has done by then is said.
PATIENCE = 60.0

BROKERS = {
    "filesystem": "folders are the broker and keep the results, and no server runs",
    "redis": "starting a private Redis",
    "amqp": "starting a private RabbitMQ, and a private Redis for the results",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("broker", nargs="?", choices=["filesystem", "redis", "amqp"], default="filesystem")
    broker = parser.parse_args().broker
    sys.stdout.reconfigure(line_buffering=True)
    installed = str(install_wheels())
    with Processes() as processes:
        progress(f"{BROKERS[broker]}; starting one worker for the tasks in Rust and in Python")
        server = processes.folders() if broker == "filesystem" else processes.redis()
        if broker == "amqp":
            server = processes.rabbitmq(server)
        path = os.pathsep.join([installed, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        os.environ.update(server.env, SHOP_DATABASE=str(processes.directory / "db.sqlite3"),
                          DJANGO_SETTINGS_MODULE="config.settings", PYTHONPATH=path)
        sys.path.insert(0, installed)
        manage("migrate", "--verbosity", "0")
        worker = processes.start("celeriac-worker", [*celeriac("-l", "info")], cwd=DJANGO)
        await_log(worker, " ready.", "the worker")

        print()
        calls_are_right = manage("demo", check=False, timeout=180) == 0
        print()
        require(worker, "the worker")
        processes.stop(worker)
        throughput(processes, server)
        if not calls_are_right:
            raise Failed("not every call came back as it should: see the table")
    return 0


def celeriac(*options: str) -> list:
    return [sys.executable, "-m", "celeriac", "-A", "config", "worker", "-c", "2", *options]


def manage(*arguments: str, check: bool = True, timeout: float = 60) -> int:
    return subprocess.run([sys.executable, "manage.py", *arguments], cwd=DJANGO, check=check, timeout=timeout,
                          stdin=subprocess.DEVNULL).returncode


def throughput(processes: Processes, server: Folders | Redis | RabbitMQ) -> None:
    """The same Rust task, once in each worker, both at their default log level (warning)."""
    sys.path.insert(0, str(DJANGO))
    import django

    django.setup()
    from shop.tasks import noop

    run, count = HOW[type(server)]
    progress(f"sending {count:,} no-ops to each worker")
    stock_command = [sys.executable, "-m", "celery", "-A", "config", "worker", "-c", "2"]
    runs = [
        ("Celeriac", "rust", celeriac("-Q", "rust")),
        ("Celery 5.7, prefork -c 2", "celery", stock_command),
    ]
    rates = []
    print(f"{'worker':<26} {'messages':>9} {'seconds':>8} {'per second':>11}")
    for name, queue, command in runs:
        start = lambda: processes.start(f"throughput-{queue}", command, cwd=DJANGO)
        process, done, seconds = run(server, noop, queue, start)
        rates.append(max(done, 1) / seconds)
        print(f"{name:<26} {done:>9,} {seconds:>8.2f} {rates[-1]:>11,.0f}", flush=True)
        processes.stop(process)
    print(f"\nCeleriac took {rates[0] / rates[1]:.0f} times as many a second.")


def run_on_redis(server: Redis, noop, queue: str, start) -> tuple:
    """The worker is up and has run one task when all messages become the queue's."""
    server.broker.flushdb()
    envelope = template(noop, server.broker, queue)
    process = start()
    for _, text in copies(envelope, 1):
        server.broker.lpush(queue, text)
    wait_for(lambda: require(process, queue) or remaining(server, queue) == 0, 60, f"the first message on {queue}")
    stage(server.broker, copies(envelope, MESSAGES))
    assert server.broker.llen(STAGING) == MESSAGES
    release(server.broker, queue)
    return process, *run_out(lambda: remaining(server, queue), MESSAGES, queue, process)


def run_on_rabbitmq(server: RabbitMQ, noop, queue: str, start) -> tuple:
    """All messages are in the queue when the worker starts; the clock starts when it takes the first one."""
    noop.apply_async(queue=queue)
    multiply(server.vhost, queue, MESSAGES)
    process = start()
    taken = lambda: require(process, queue) or server.vhost.ready(queue) < MESSAGES
    wait_for(taken, 60, f"the first message on {queue}", pause=0.002)
    return process, *run_out(lambda: server.open_messages(queue), MESSAGES, queue, process)


def run_on_folders(server: Folders, noop, queue: str, start) -> tuple:
    """As on RabbitMQ. What a stock worker has in its window, eight messages, counts as done."""
    server.renew()
    noop.apply_async(queue=queue)
    server.put(queue, (text for _, text in copies(server.take(queue), MESSAGES_IN_FOLDERS)))
    process = start()
    left = lambda: server.open_messages(queue)
    wait_for(lambda: require(process, queue) or left() < MESSAGES_IN_FOLDERS, 60, f"the first message on {queue}", pause=0.002)
    return process, *run_out(left, MESSAGES_IN_FOLDERS, queue, process)


def run_out(remaining, count: int, queue: str, process) -> tuple[int, float]:
    """How many of so many messages were done with, and in how many seconds."""
    started = time.perf_counter()
    while (left := remaining()) and time.perf_counter() - started < PATIENCE:
        require(process, queue)
        time.sleep(0.005)
    return count - left, time.perf_counter() - started


def remaining(server: Redis, queue: str) -> int:
    """Messages that wait, and messages that are reserved and not acknowledged."""
    return server.broker.llen(queue) + server.broker.hlen("unacked")


HOW = {Folders: (run_on_folders, MESSAGES_IN_FOLDERS), Redis: (run_on_redis, MESSAGES), RabbitMQ: (run_on_rabbitmq, MESSAGES)}


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Failed, subprocess.SubprocessError) as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
