"""The no-op of taskiq, and its producer: ``taskiq_peer.py COUNT``.

The broker is the one of taskiq-redis that acknowledges (streams); the task is ``async def``, which is run without a
thread, and what is read at a time is ten times the default. Results are not kept, as is the default.
"""

import asyncio
import os
import sys

from taskiq_redis import RedisStreamBroker

# "0": what was sent before the first worker came is its, too.
broker = RedisStreamBroker(os.environ["CELERY_BROKER_URL"], consumer_id="0", xread_count=1000)


@broker.task(task_name="noop")
async def noop() -> None:
    """Nothing."""


async def send(count: int) -> None:
    await broker.startup()
    for start in range(0, count, 100):
        await asyncio.gather(*(noop.kiq() for _ in range(min(100, count - start))))
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(send(int(sys.argv[1])))
