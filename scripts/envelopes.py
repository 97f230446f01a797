"""Many messages from one: an envelope that ``.delay()`` wrote, copied with fresh ids."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Iterable, Iterator

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
    text = envelope.replace(tag, "\0tag\0").replace(task_id, "\0id\0")
    for fresh, fresh_tag in zip(ids(count), ids(count)):
        yield fresh, text.replace("\0id\0", fresh).replace("\0tag\0", fresh_tag)


def ids(count: int) -> Iterator[str]:
    """Different UUIDs: a random one, counted on (``uuid4`` a million times would take longer than the measurement)."""
    start = uuid.uuid4().int
    for number in itertools.islice(itertools.count(start), count):
        text = f"{number % 2**128:032x}"
        yield f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def stage(broker: redis.Redis, envelopes: Iterable[tuple[str, str]], batch: int = 2000) -> int:
    """Puts all envelopes into a list that no worker reads; returns how many."""
    broker.delete(STAGING)
    texts = (text for _, text in envelopes)
    while chunk := list(itertools.islice(texts, batch)):
        broker.lpush(STAGING, *chunk)
    return broker.llen(STAGING)


def release(broker: redis.Redis, queue: str) -> None:
    """All staged messages become the queue's, in one instant."""
    broker.rename(STAGING, queue)
