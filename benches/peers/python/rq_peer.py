"""The no-op of rq, and its producer: ``rq_peer.py COUNT``. Results are not kept (``result_ttl=0``)."""

import os
import sys

from redis import Redis
from rq import Queue


def noop():
    """Nothing."""


def send(count: int) -> None:
    queue = Queue("default", connection=Redis.from_url(os.environ["CELERY_BROKER_URL"]))
    for start in range(0, count, 500):
        size = min(500, count - start)
        queue.enqueue_many([Queue.prepare_data("rq_peer.noop", result_ttl=0) for _ in range(size)])


if __name__ == "__main__":
    send(int(sys.argv[1]))
