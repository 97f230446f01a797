"""What Kombu declares for native delayed delivery, and the keys that it publishes with.

    python record_delayed.py > delayed.json

Recorded with Kombu 5.7.0.
"""

import json

from kombu import Exchange, Queue
from kombu.transport import native_delayed_delivery as native


class Channel:
    """Writes down what it is asked."""

    no_ack_consumers = None

    def __init__(self):
        self.asked = []

    def exchange_declare(self, exchange, type, durable, auto_delete, **_):
        assert durable and not auto_delete
        self.asked.append(["exchange", exchange, type])

    def queue_declare(self, queue, durable, exclusive, auto_delete, arguments, **_):
        assert durable and not exclusive and not auto_delete
        self.asked.append(["queue", queue, arguments])
        return queue, 0, 0

    def queue_bind(self, queue, exchange, routing_key, **_):
        self.asked.append(["bind queue", queue, exchange, routing_key])

    def exchange_bind(self, destination, source, routing_key, **_):
        self.asked.append(["bind exchange", destination, source, routing_key])

    def prepare_queue_arguments(self, arguments, **_):
        return arguments


class Connection:
    def __init__(self):
        self.only = Channel()

    def channel(self):
        return self.only


def declared(queue_type):
    connection = Connection()
    native.declare_native_delayed_delivery_exchanges_and_queues(connection, queue_type)
    return connection.only.asked


def bound(name, exchange, exchange_type, key):
    connection = Connection()
    queue = Queue(name, Exchange(exchange, type=exchange_type), routing_key=key)
    native.bind_queue_to_native_delayed_delivery_exchange(connection, queue)
    return [name, exchange, exchange_type, key, connection.only.asked]


SECONDS = [1, 2, 5, 6, 60, 3600, 7200, 86400, 2**27, 2**28 - 1]
PREFIX = "0." * 27 + "1."
KEYS = [
    "celery", "a.b", PREFIX + "celery", PREFIX + PREFIX + "celery", "0.1.celery", "2." * 28 + "celery", "1." * 29 + "x",
]
QUEUES = [
    ("celery", "celery", "topic", "celery"), ("q", "x", "topic", "a.*.#"), ("q", "x", "topic", "#.a"),
    ("q", "x", "fanout", ""), ("q", "x", "fanout", "k"), ("q", "x", "direct", "k"),
]

if __name__ == "__main__":
    print(json.dumps({
        "classic": declared("classic"), "quorum": declared("quorum"),
        "keys": [[seconds, key, native.calculate_routing_key(seconds, key)] for seconds in SECONDS for key in KEYS],
        "stripped": [[key, native._delay_prefix_re.sub("", key, count=1)] for key in KEYS],
        "queues": [bound(*queue) for queue in QUEUES],
    }, separators=(",", ":")))
