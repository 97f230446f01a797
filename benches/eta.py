"""A worker that holds very many tasks for their ETA: what each costs, and what becomes of them.

    benches/eta.py [--tasks 1000000] [--due 100000] [--worker PATH]

Measures the memory of each held task, how long taking them in, giving them back and taking them over from a killed worker
takes, how long Redis keeps others waiting while their leases are renewed, and how late tasks begin that are all due in
one moment. Prints the figures as a table and as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import time
import uuid
from datetime import datetime, timedelta, timezone
from pathlib import Path

import redis

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

from envelopes import STAGING, release, template  # noqa: E402
from harness import Failed, Processes, await_log, build_worker, progress, require, wait_for  # noqa: E402

QUEUE = "eta"
# Seconds. Leases are renewed at a third of it.
VISIBILITY = 60


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=1_000_000, help="how many to hold")
    parser.add_argument("--due", type=int, default=100_000, help="how many to run at one moment")
    parser.add_argument("--worker", type=Path, help="the example worker (default: an optimised one is built)")
    options = parser.parse_args()
    options.worker = options.worker or build_worker()
    with Processes() as processes:
        server = processes.redis()
        os.environ.update(server.env)
        from stock_app import noop

        bench = Bench(processes, server, noop, options.worker)
        figures = {**bench.hold(options.tasks), **bench.run_due(options.due)}
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):<44} {value:>12,.1f}" if isinstance(value, float) else
              f"{name.replace('_', ' '):<44} {value:>12,}")
    print(json.dumps(figures))
    return 0


class Bench:
    def __init__(self, processes, server, noop, worker):
        self.processes, self.server, self.worker = processes, server, worker
        self.template = json.loads(template(noop, server.broker, QUEUE, countdown=3600))
        self.started = 0

    def start(self):
        settings = self.processes.directory / "eta.toml"
        settings.write_text("task_ignore_result = true\n[broker_transport_options]\n"
                            f"visibility_timeout = {VISIBILITY}\nunacked_restore_interval = 1\n"
                            "unacked_restore_throttle = 1\n")
        self.started += 1
        command = [self.worker, "--config", settings, "worker", "-Q", QUEUE, "-l", "info"]
        worker = self.processes.start(f"worker{self.started}", command, env=self.server.env)
        await_log(worker, "ready.", "the worker")
        return worker

    def messages(self, count, eta):
        """Envelopes that differ as those of a producer do."""
        head = self.template["headers"]
        message = json.dumps({**self.template, "headers": {**head, "eta": "\0eta\0"}})
        old, tag = head["id"], self.template["properties"]["delivery_tag"]
        message = message.replace(tag, "\0tag\0").replace(old, "\0id\0").replace("\\u0000", "\0")
        for nth in range(count):
            fresh, mark = (str(uuid.UUID(int=random.getrandbits(128), version=4)) for _ in range(2))
            yield message.replace("\0id\0", fresh).replace("\0tag\0", mark).replace("\0eta\0", eta(nth).isoformat())

    def stage(self, count, eta):
        progress(f"writing {count:,} messages")
        batch = []
        for text in self.messages(count, eta):
            batch.append(text)
            if len(batch) == 2000:
                self.server.broker.lpush(STAGING, *batch)
                batch.clear()
        if batch:
            self.server.broker.lpush(STAGING, *batch)

    def left(self):
        pipe = self.server.broker.pipeline(transaction=False)
        pipe.llen(QUEUE).hlen("unacked").zcard("unacked_index")
        return pipe.execute()

    def wait_left(self, expected, worker, timeout):
        def reached():
            require(worker, "the worker")
            return self.left() == expected

        began = time.monotonic()
        wait_for(reached, timeout, f"{expected}, there are {self.left()}", pause=0.05)
        return time.monotonic() - began

    def hold(self, count):
        """In hours, a second apart from each other on the average."""
        soon = datetime.now(timezone.utc) + timedelta(hours=6)
        worker = self.start()
        idle = memory(worker)
        self.stage(count, lambda nth: soon + timedelta(microseconds=random.randrange(count * 1_000_000)))
        release(self.server.broker, QUEUE)
        progress("taking them in")
        taken = self.wait_left([0, count, count], worker, 1200)
        time.sleep(2)  # What was taken last is still being decoded.
        held = memory(worker)
        progress("renewing leases")
        waits = waiting(self.server.port, VISIBILITY)
        oldest = time.time() - float(self.server.broker.zrange("unacked_index", 0, 0, withscores=True)[0][1])
        cpu = sum(float(part) for part in Path(f"/proc/{worker.pid}/stat").read_text().split()[13:15]) / 100
        progress("killing the worker")
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        other = self.start()
        # Back in the queue after the visibility timeout, and then with the other one.
        taken_over = self.wait_taken_over(count, other, worker)
        progress("stopping the other one")
        began = time.monotonic()
        other.terminate()
        if (code := other.wait(900)) != 0:
            raise Failed(f"the worker ended with {code}")
        given_back = time.monotonic() - began
        assert self.left() == [count, 0, 0], self.left()
        self.server.broker.flushall()
        return {
            "tasks_held": count,
            "bytes_of_memory_for_each": (held["rss"] - idle["rss"]) / count,
            "megabytes_resident_idle": idle["rss"] / 2**20,
            "megabytes_resident_holding_them": held["rss"] / 2**20,
            "megabytes_at_the_most": held["peak"] / 2**20,
            "taken_in_each_second": count / taken,
            "processor_seconds_in_all": cpu,
            "longest_wait_for_redis_while_renewing_ms": waits * 1000,
            "oldest_lease_as_part_of_the_timeout": oldest / VISIBILITY,
            "seconds_until_taken_over_from_a_killed_one": taken_over,
            "given_back_at_a_stop_each_second": count / given_back,
        }

    def wait_taken_over(self, count, other, killed):
        """Until all tags are those of the other worker: it renews them, and those of the killed one are gone."""
        began = time.monotonic()
        with contextlib.suppress(StopIteration):
            own = next(tag for tag in self.server.broker.zrange("unacked_index", 0, 0))
        prefix = own.rsplit(b"-", 1)[0]

        def over():
            require(other, "the other worker")
            oldest = self.server.broker.zrange("unacked_index", 0, 0)
            return self.left() == [0, count, count] and oldest and not oldest[0].startswith(prefix)

        wait_for(over, 1200, lambda: self.left(), pause=0.2)
        return time.monotonic() - began

    def run_due(self, count):
        """All at one moment."""
        worker = self.start()
        moment = datetime.now(timezone.utc) + timedelta(seconds=max(10, count / 10_000))
        self.stage(count, lambda nth: moment)
        release(self.server.broker, QUEUE)
        self.wait_left([0, count, count], worker, 600)
        margin = (moment - datetime.now(timezone.utc)).total_seconds()
        if margin < 0:
            raise Failed(f"taken in {-margin:.1f} s after they were due: the machine is too slow for so many")
        early = 0
        while datetime.now(timezone.utc) < moment - timedelta(milliseconds=20):
            early = max(early, count - self.left()[1])
            time.sleep(0.005)
        self.wait_left([0, 0, 0], worker, 600)
        done = datetime.now(timezone.utc) - moment
        self.processes.stop(worker)
        return {
            "tasks_due_at_one_moment": count,
            "run_early": early,
            "seconds_until_all_have_run": done.total_seconds(),
            "run_each_second": count / done.total_seconds(),
        }


def memory(process):
    status = Path(f"/proc/{process.pid}/status").read_text()
    line = lambda name: int(next(row.split()[1] for row in status.splitlines() if row.startswith(name))) * 1024
    return {"rss": line("VmRSS"), "peak": line("VmHWM")}


def waiting(port, seconds):
    """The longest that Redis took to answer somebody else within that time."""
    client, longest, end = redis.Redis(port=port), 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        client.ping()
        longest = max(longest, time.monotonic() - began)
        time.sleep(0.001)
    return longest


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as error:
        sys.exit(f"benches/eta.py: {error}")
