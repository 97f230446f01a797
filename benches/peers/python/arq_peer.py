"""The no-op of arq, and its producer: ``arq_peer.py COUNT``.

A message leaves the queue when its coroutine has ended, as is arq's only way. Results are not kept (``keep_result = 0``);
by default a worker looks for messages twice a second and has ten at a time: here it looks again at once, and has 100.
"""

import asyncio
import os
import sys

from arq import create_pool
from arq.connections import RedisSettings


async def noop(ctx) -> None:
    """Nothing."""


# Its command line logs two lines for each message; the other workers log none.
quiet = {"version": 1, "loggers": {"arq": {"level": "WARNING"}}}


class WorkerSettings:
    functions = [noop]
    redis_settings = RedisSettings.from_dsn(os.environ["CELERY_BROKER_URL"])
    keep_result = 0
    log_results = False
    max_jobs = 100
    poll_delay = 0.001
    queue_read_limit = 1000


async def send(count: int) -> None:
    pool = await create_pool(WorkerSettings.redis_settings)
    for start in range(0, count, 100):
        await asyncio.gather(*(pool.enqueue_job("noop") for _ in range(min(100, count - start))))
    await pool.aclose()


if __name__ == "__main__":
    asyncio.run(send(int(sys.argv[1])))
