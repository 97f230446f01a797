"""A private RabbitMQ: one node for all tests that do not stop it, and a vhost of it for each that asks."""

import base64
import contextlib
import json
import threading
import time

import amqp
from amqp.serialization import dumps, loads
from celery import Celery

from support import DEAD_LETTERS, SECONDS, Redis  # Imported first: it puts `scripts` on the path, where `rabbitmq` is.
import rabbitmq

BROKEN = (amqp.AMQPError, OSError)

_shared = None


def shared():
    """The node of all tests that do not stop it."""
    global _shared
    _shared = _shared or rabbitmq.Node()
    return _shared


class VHost(rabbitmq.VHost):
    """A part of a node that nobody else uses, with a connection of our own to it.

    Messages are shown and taken as the envelopes that Kombu's virtual transports make, so that tests say once what is
    in a message: `body` in base64, `content-type`, `content-encoding`, `headers`, and `properties` for the rest.
    """

    def __init__(self, node):
        super().__init__(node)
        self._ours = threading.local()  # py-amqp's connections are for one thread.

    def cut(self):
        """Breaks every connection without a word; how many there were."""
        self.disconnect()
        return int(self._ask("cut"))

    def close_connections(self, reason):
        """Closes them as an operator does."""
        self.disconnect()
        return int(self._ask("close", json.dumps(reason)))

    def remove(self):
        self.disconnect()
        super().remove()

    def disconnect(self):
        """Closes this thread's connection."""
        connection, self._ours.connection = getattr(self._ours, "connection", None), None
        with contextlib.suppress(*BROKEN):
            if connection:
                connection.close()

    def channel(self):
        """This thread's, which lives as long as nobody breaks it."""
        ours = self._ours
        if not (getattr(ours, "connection", None) and ours.connection.connected and ours.channel.is_open):
            self.disconnect()
            address = f"127.0.0.1:{self.node.port}"
            connection = amqp.Connection(address, virtual_host=self.name, connect_timeout=SECONDS)
            connection.connect()
            ours.connection, ours.channel, ours.declared = connection, connection.channel(), set()
        return ours.channel

    def send(self, queue, *envelopes):
        """Puts messages into the queue as who must not lose any: with confirms, and until there are as many of them. What
        the node has not confirmed when it ends is sent once more, and is then there twice perhaps."""
        left = dict(enumerate(map(message, map(json.loads, envelopes))))
        waits, end = len(left), time.monotonic() + 4 * SECONDS
        while left:
            with contextlib.suppress(*BROKEN):
                send_all(self.channel(), queue, left)
            if len(left) < waits:
                waits, end = len(left), time.monotonic() + 4 * SECONDS
            assert time.monotonic() < end, f"{len(left)} messages are not confirmed"

    def declare(self, queue, **arguments):
        """As stock Celery declares queues; what is there already stays as it is."""
        channel = self.channel()
        if queue not in self._ours.declared:
            if queue not in self.depths():
                channel.queue_declare(queue, durable=True, auto_delete=False, arguments=arguments)
            self._ours.declared.add(queue)

    def push(self, queue, *envelopes):
        """Puts messages into the queue; returns when they are there."""
        channel = self.channel()
        self.declare(queue)
        for envelope in envelopes:
            envelope = json.loads(envelope) if isinstance(envelope, (str, bytes)) else envelope
            channel.basic_publish(message(envelope), exchange="", routing_key=queue)
        channel.queue_declare(queue, passive=True)  # Answered when the queue has all that was sent before.

    def get(self, queue):
        """The next message, taken away, as an envelope; nothing if there is none."""
        self.declare(queue)
        taken = self.channel().basic_get(queue, no_ack=True)
        return taken and envelope(taken)

    def waiting(self, queue):
        """All that wait in the queue, the next one first, and stay there."""
        self.declare(queue)
        with contextlib.closing(self._ours.connection.channel()) as looking:
            return [envelope(taken) for taken in iter(lambda: looking.basic_get(queue), None)]

    def clear(self):
        """Throws away all that waits. The queues stay: stock clients remember that they are there."""
        for queue, (ready, _) in self.depths().items():
            if ready:
                self.channel().queue_purge(queue)


def send_all(channel, queue, left):
    """Publishes the messages of a dictionary, and takes out of it those that are confirmed."""
    channel = channel.connection.channel()
    channel.confirm_select()
    numbers = list(left)

    def confirmed(tag, multiple):
        for tag in range(1 if multiple else tag, tag + 1):
            left.pop(numbers[tag - 1], None)

    channel.events["basic_ack"].add(confirmed)
    for one in list(left.values()):
        channel.basic_publish(one, exchange="", routing_key=queue)
    while left:
        channel.connection.drain_events(SECONDS)
    channel.close()


PROPERTIES = {
    "delivery_mode", "priority", "correlation_id", "reply_to", "expiration", "message_id", "timestamp", "type",
    "user_id", "app_id", "cluster_id",
}


class RawTable:
    """Headers, and behind them entries that py-amqp would not write."""

    def __init__(self, headers, entries):
        self.headers, self._entries = headers, entries

    def bytes(self):
        table = dumps("F", [self.headers])[4:] + self._entries
        return len(table).to_bytes(4, "big") + table

    def read(self):
        """What py-amqp reads of it."""
        return loads("F", self.bytes(), 0)[0][0]


class RawMessage(amqp.Message):
    """A message with a raw table; of the other properties only the types of its body."""

    def __init__(self, body, table, content_type, content_encoding):
        super().__init__(body)
        types = dumps("ss", [content_type, content_encoding])
        self._raw = b"\xe0\0" + types + table.bytes()

    def _serialize_properties(self):
        return self._raw


def message(envelope):
    """An envelope as AMQP carries it."""
    if isinstance(envelope["headers"], RawTable):
        body = base64.b64decode(envelope["body"])
        return RawMessage(body, envelope["headers"], envelope["content-type"], envelope["content-encoding"])
    properties = {name: value for name, value in envelope["properties"].items() if name in PROPERTIES}
    for name, field in [("content_type", "content-type"), ("content_encoding", "content-encoding")]:
        if envelope.get(field) is not None:
            properties[name] = envelope[field]
    body = envelope["body"]
    body = base64.b64decode(body) if envelope["properties"].get("body_encoding") else body.encode()
    if envelope["headers"] is not None:
        properties["application_headers"] = envelope["headers"]
    return amqp.Message(body, **properties)


def envelope(taken):
    """A message that was taken, as an envelope."""
    properties = dict(taken.properties)
    body = taken.body.encode() if isinstance(taken.body, str) else bytes(taken.body)
    delivery = {name: taken.delivery_info[name] for name in ("exchange", "routing_key", "redelivered")}
    return {
        "body": base64.b64encode(body).decode(), "headers": properties.pop("application_headers", None),
        "content-type": properties.pop("content_type", None),
        "content-encoding": properties.pop("content_encoding", None),
        "properties": {**properties, "body_encoding": "base64", "delivery_info": delivery},
    }


class Rabbit:
    """What `support.Redis` is, on RabbitMQ: a broker of our own, and a Redis for the results."""

    kind = "rabbitmq"
    # What is no command, for `broadcast`.
    NO_COMMANDS = [
        {"body": body, "headers": headers, "properties": {"body_encoding": "base64"}, "content-type": kind}
        for body in ("", "/wA=", "e30=", "W10=") for headers in (None, {}) for kind in (None, "application/json", "?")
    ]

    def __init__(self, folder):
        self.vhost, self._results = VHost(shared()), Redis(folder)
        self.broker_url, self.result_url = self.vhost.url, self._results.result_url
        self.results = self._results.results

    def push(self, queue, *envelopes):
        self.vhost.push(queue, *envelopes)

    def take(self, queue, timeout=SECONDS):
        """The oldest message of the queue, waited for."""
        end = time.monotonic() + timeout
        while not (taken := self.vhost.get(queue)):
            assert time.monotonic() < end, f"nothing came into {queue}"
            time.sleep(0.01)
        return taken

    def length(self, queue):
        """How many messages wait."""
        return self.vhost.ready(queue)

    def waiting(self, queue):
        """The envelopes in the queue, the next one first."""
        return self.vhost.waiting(queue)

    def held(self):
        """How many messages are unacknowledged."""
        return self.vhost.unacknowledged()

    def forget_reserved(self):
        """Nothing: RabbitMQ gives back at once what a killed worker held."""

    def forget(self, queue):
        """Throws away what waits in it."""
        self.vhost.declare(queue)
        self.vhost.channel().queue_purge(queue)

    def broadcast(self, exchange, envelope):
        """Says it to everybody who listens to the exchange."""
        self.vhost.channel().basic_publish(message(envelope), exchange=exchange)

    def holds_nothing(self):
        """Waits until no message is unacknowledged."""
        end = time.monotonic() + SECONDS
        while self.vhost.unacknowledged():
            assert time.monotonic() < end, f"reserved and not settled: {self.vhost.depths()}"
            time.sleep(0.01)

    def dead_letter(self):
        """The oldest dead letter's envelope."""
        return self.take(DEAD_LETTERS)

    def cut(self):
        """Breaks every connection."""
        return self.vhost.cut()

    def stop(self):
        self.vhost.remove()
        self._results.stop()


class RabbitBroker:
    """What `faults.Broker` is, on RabbitMQ."""

    kind = "rabbitmq"

    def __init__(self, folder, durable=False):
        # What is stopped and started is nobody else's.
        self.node = rabbitmq.Node() if durable else shared()
        self.vhost, self.results = VHost(self.node), Redis(folder)
        self.is_own = durable
        self.url, self.result_url = self.vhost.url, self.results.result_url

    def start(self):
        self.node.start()

    def shut_down(self):
        """Of a broker that is durable: the node. Of another one: for good."""
        if not self.is_own:
            return self.close()
        self.vhost.disconnect()
        self.node.shut_down()

    def close(self):
        self.vhost.disconnect()
        self.node.close() if self.is_own else self.vhost.remove()
        self.results.kill()

    def application(self, **transport_options):
        """A stock client. Options that are for Redis mean nothing here."""
        return Celery("client", broker=self.url, backend=self.result_url, set_as_current=False)

    def left(self, *queues):
        """What is unacknowledged, once more, and waiting: as a Redis broker shows it."""
        depths = self.vhost.depths()
        held = sum(unacknowledged for _, unacknowledged in depths.values())
        return (held, held, *(depths.get(queue, (0, 0))[0] for queue in queues))

    def held(self):
        """How many messages are unacknowledged."""
        return self.vhost.unacknowledged()

    def push(self, queue, *envelopes):
        self.vhost.push(queue, *envelopes)

    def pop(self, queue):
        """The next message's envelope, taken away; nothing if there is none."""
        return self.vhost.get(queue)

    def waiting(self, queue):
        """The envelopes in the queue, the next one first."""
        return self.vhost.waiting(queue)

    def cut(self):
        """Breaks every connection; how many there were."""
        return self.vhost.cut()

    def clear(self):
        """Throws away all messages that wait and every result."""
        self.vhost.clear()
        self.results.results.flushall()
