"""The no-op of dramatiq, and its producer: ``dramatiq_peer.py COUNT``.

Actors acknowledge when they have ended, as is dramatiq's only way. Results are not kept, as is its default.
"""

import os
import sys

import dramatiq
from dramatiq.brokers.redis import RedisBroker

# Its own default middleware, and no more; hiredis is installed, as redis-py recommends.
broker = RedisBroker(url=os.environ["CELERY_BROKER_URL"])
dramatiq.set_broker(broker)


@dramatiq.actor
def noop():
    """Nothing."""


if __name__ == "__main__":
    for _ in range(int(sys.argv[1])):
        noop.send()
