"""`make demo`: a Django project calls tasks that run in a Rust worker, beside a stock Celery worker.

Starts a private Redis, migrates a database of its own, starts both workers, runs `manage.py demo`, and then measures
20,000 no-ops on each worker. Ends by itself, and with an exit code other than 0 if anything is wrong.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from envelopes import STAGING, copies, release, stage, template
from harness import DJANGO, Failed, Processes, Redis, await_log, build_worker, progress, require, wait_for

MESSAGES = 20_000
# A stock worker takes about a thousand a second; it is given this long, and what it has done by then is said.
PATIENCE = 60.0


def main() -> int:
    sys.stdout.reconfigure(line_buffering=True)
    worker = build_worker()
    with Processes() as processes:
        progress("starting a private Redis, a Rust worker for the queue rust, a stock Celery worker for the queue celery")
        server = processes.redis()
        os.environ.update(server.env, SHOP_DATABASE=str(processes.directory / "db.sqlite3"),
                          DJANGO_SETTINGS_MODULE="config.settings")
        manage("migrate", "--verbosity", "0")
        rust = processes.start("rust-worker", [worker, "worker", "-Q", "rust", "-l", "info", "-n", "rust@%h"])
        stock = processes.start(
            "celery-worker",
            [sys.executable, "-m", "celery", "-A", "config", "worker", "-Q", "celery", "-l", "info", "-c", "2",
             "-n", "stock@%h"],
            cwd=DJANGO,
        )
        await_log(rust, " ready.", "the Rust worker")
        await_log(stock, " ready.", "the Celery worker")

        print()
        calls_are_right = manage("demo", check=False, timeout=180) == 0
        print()
        require(rust, "the Rust worker")
        processes.stop(rust)
        processes.stop(stock)
        throughput(processes, server, worker)
        if not calls_are_right:
            raise Failed("not every call came back as it should: see the table")
    return 0


def manage(*arguments: str, check: bool = True, timeout: float = 60) -> int:
    return subprocess.run([sys.executable, "manage.py", *arguments], cwd=DJANGO, check=check, timeout=timeout,
                          stdin=subprocess.DEVNULL).returncode


def throughput(processes: Processes, server: Redis, worker) -> None:
    """The same envelopes, once to each worker, both at their default log level (warning)."""
    sys.path.insert(0, str(DJANGO))
    import django

    django.setup()
    from shop.tasks import noop

    progress(f"sending {MESSAGES:,} no-ops to each worker")
    envelope = template(noop, server.broker, "celery")
    envelopes = list(copies(envelope, MESSAGES))
    stock_command = [sys.executable, "-m", "celery", "-A", "config", "worker", "-c", "2"]
    runs = [
        ("Celeriac", "rust", [worker, "worker", "-Q", "rust"]),
        ("Celery 5.7, prefork -c 2", "celery", stock_command),
    ]
    rates = []
    print(f"{'worker':<26} {'messages':>9} {'seconds':>8} {'per second':>11}")
    for name, queue, command in runs:
        process = processes.start(f"throughput-{queue}", command, cwd=DJANGO)
        warm_up(server, queue, envelope, process)
        stage(server.broker, ((task_id, text.replace('"routing_key": "celery"', f'"routing_key": "{queue}"'))
                              for task_id, text in envelopes))
        done, seconds = run_out(server, queue, process)
        rates.append(done / seconds)
        print(f"{name:<26} {done:>9,} {seconds:>8.2f} {rates[-1]:>11,.0f}", flush=True)
        processes.stop(process)
        server.broker.flushdb()
    print(f"\nCeleriac took {rates[0] / rates[1]:.0f} times as many a second.")


def warm_up(server: Redis, queue: str, envelope: str, process) -> None:
    """One message, so that the worker is up before the clock starts."""
    for _, text in copies(envelope, 1):
        server.broker.lpush(queue, text)
    wait_for(lambda: require(process, queue) or remaining(server, queue) == 0, 60, f"the first message on {queue}")


def run_out(server: Redis, queue: str, process) -> tuple[int, float]:
    """How many of the staged messages were taken and acknowledged, and in how many seconds."""
    assert server.broker.llen(STAGING) == MESSAGES
    release(server.broker, queue)
    started = time.perf_counter()
    while (left := remaining(server, queue)) and time.perf_counter() - started < PATIENCE:
        require(process, queue)
        time.sleep(0.005)
    return MESSAGES - left, time.perf_counter() - started


def remaining(server: Redis, queue: str) -> int:
    """Messages that wait, and messages that are reserved and not acknowledged."""
    return server.broker.llen(queue) + server.broker.hlen("unacked")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Failed, subprocess.SubprocessError) as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
