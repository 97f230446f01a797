"""What workers publish to RabbitMQ for a canvas, as RabbitMQ's own tracer shows it; and what they store, as the Redis of
the results is told it."""

import base64
import json
import uuid

import amqp

from records import Record, Recorder
from support import DEAD_LETTERS, SECONDS


class TracingRecorder(Recorder):
    """Reads along what a vhost, and a Redis beside it, are told."""

    def __init__(self, broker, queues):
        super().__init__(broker.results.port, queues)
        vhost = broker.vhost
        assert vhost.node.ask(f"rabbit_trace:start(<<{json.dumps(vhost.name)}>>).") == "ok"
        self._connection = amqp.Connection(f"127.0.0.1:{vhost.node.port}", virtual_host=vhost.name)
        self._connection.connect()
        self._channel, self._published = self._connection.channel(), []
        queue = self._channel.queue_declare(exclusive=True).queue
        self._channel.queue_bind(queue, "amq.rabbitmq.trace", "publish.#")
        self._channel.basic_consume(queue, no_ack=True, callback=self._published.append)

    def take(self):
        """All that was published and stored since it was last asked."""
        marker = uuid.uuid4().hex
        self._channel.basic_publish(amqp.Message(marker), routing_key=marker)
        while not any(_key(seen) == marker for seen in self._published):
            self._connection.drain_events(SECONDS)
        _, metas = self._seen()
        sent = (one for one in self._published if _key(one) not in (marker, DEAD_LETTERS) and not _is_for_monitors(one))
        messages = [self._message(_key(one), _envelope(one)) for one in sent]
        self._published.clear()
        return Record(messages, metas)

    def close(self):
        self._connection.close()
        super().close()


def _key(traced):
    return traced.headers["routing_keys"][0]


def _is_for_monitors(traced):
    """Commands and heartbeats: they come when they come, whatever a task does."""
    exchange = traced.headers["exchange_name"]
    return exchange.endswith(".pidbox") or exchange == "celeryev"


def _envelope(traced):
    """The message that was published, as Kombu's virtual transports have it."""
    properties = dict(traced.headers["properties"])
    body = traced.body.encode() if isinstance(traced.body, str) else bytes(traced.body)
    return {
        "body": base64.b64encode(body).decode(), "headers": properties.pop("headers", None),
        "content-type": properties.pop("content_type", None),
        "content-encoding": properties.pop("content_encoding", None), "properties": properties,
    }
