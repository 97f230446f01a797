"""Many messages from one: an envelope that ``.delay()`` wrote, copied with fresh ids."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import redis

STAGING = "celeriac.staging"


def template(task, broker: redis.Redis, queue: str, *args, **options) -> str:
    """What Celery itself puts into ``queue`` for ``task.apply_async(args, **options)``."""
    task.apply_async(args, queue=queue, **options)
    raw = broker.rpop(queue)
    assert raw is not None, f"no message arrived in {queue}"
    return raw.decode()


def copies(envelope: str, count: int) -> Iterator[tuple[str, str]]:
    """``count`` times ``(task id, envelope)``, each with its own task id and delivery tag."""
    message = json.loads(envelope)
    task_id, tag = message["headers"]["id"], message["properties"]["delivery_tag"]
    pieces = envelope.replace(tag, "\0tag\0").replace(task_id, "\0id\0")
    for _ in range(count):
        fresh = str(uuid.uuid4())
        yield fresh, pieces.replace("\0id\0", fresh).replace("\0tag\0", str(uuid.uuid4()))


def stage(broker: redis.Redis, envelopes: Iterator[tuple[str, str]], batch: int = 2000) -> int:
    """Puts all envelopes into a list that no worker reads; returns how many."""
    count = 0
    broker.delete(STAGING)
    chunk: list[str] = []
    for _, envelope in envelopes:
        chunk.append(envelope)
        if len(chunk) == batch:
            count = broker.lpush(STAGING, *chunk)
            chunk.clear()
    if chunk:
        count = broker.lpush(STAGING, *chunk)
    return count


def release(broker: redis.Redis, queue: str) -> None:
    """All staged messages become the queue's, in one instant."""
    broker.rename(STAGING, queue)
