"""Many messages from one, on RabbitMQ: the message that ``.delay()`` put into a queue, copied with fresh ids.

The bytes of one publication are made once, and each copy gets its id written into them: a queue is filled about as fast as
the server confirms.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from struct import pack

import amqp

from envelopes import ids
from rabbitmq import VHost

BATCH = 2000
METHOD, HEADER, BODY, END = 1, 2, 3, b"\xce"
BASIC, PUBLISH = 60, 40


def multiply(vhost: VHost, queue: str, count: int) -> None:
    """Takes the one message out of ``queue`` and puts ``count`` copies there; returns when all of them are confirmed."""
    connection = amqp.Connection(f"127.0.0.1:{vhost.node.port}", virtual_host=vhost.name)
    connection.connect()
    with contextlib.closing(connection):
        channel = connection.channel()
        taken = channel.basic_get(queue, no_ack=True)
        assert taken is not None, f"no message arrived in {queue}"
        unconfirmed = Unconfirmed(channel)
        each = publications(channel.channel_id, queue, taken, count)
        while chunk := list(itertools.islice(each, BATCH)):
            connection.transport.write(b"".join(chunk))
            unconfirmed.wait(connection, len(chunk))


def publications(channel: int, queue: str, message: amqp.Message, count: int) -> Iterator[bytes]:
    """The bytes of ``Basic.publish`` with the message, to the queue, each with another id."""
    body = message.body.encode() if isinstance(message.body, str) else bytes(message.body)
    method = pack(">HHH", BASIC, PUBLISH, 0) + short("") + short(queue) + b"\0"
    header = pack(">HHQ", BASIC, 0, len(body)) + message._serialize_properties()
    frames = [(METHOD, method), (HEADER, header), (BODY, body)]
    whole = b"".join(pack(">BHI", kind, channel, len(payload)) + payload + END for kind, payload in frames)
    parts = whole.split(message.properties["correlation_id"].encode())
    # In the properties, and in the headers `id` and `root_id`.
    assert len(parts) >= 3, "the message has its id in other places than Celery's messages"
    return (fresh.encode().join(parts) for fresh in ids(count))


def short(text: str) -> bytes:
    return bytes([len(text.encode())]) + text.encode()


class Unconfirmed:
    """What a channel has sent and the server has not confirmed."""

    def __init__(self, channel: amqp.Channel):
        self._last, self._tags = 0, set()
        channel.events["basic_ack"].add(self._confirmed)
        channel.events["basic_nack"].add(self._refused)
        channel.confirm_select()

    def wait(self, connection: amqp.Connection, sent: int) -> None:
        """Until so many that were sent just now are confirmed."""
        self._tags.update(range(self._last + 1, self._last + 1 + sent))
        self._last += sent
        while self._tags:
            connection.drain_events(timeout=60)

    def _confirmed(self, tag: int, multiple: bool) -> None:
        if multiple:
            self._tags = {other for other in self._tags if other > tag}
        else:
            self._tags.discard(tag)

    @staticmethod
    def _refused(tag: int, _multiple: bool) -> None:
        raise AssertionError(f"RabbitMQ refused the message {tag}")
