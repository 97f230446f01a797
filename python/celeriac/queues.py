"""The queues that a worker consumes, as the project's Celery says it: kombu's objects, and what receivers have added."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Optional

from kombu import Queue
from kombu.transport.base import RABBITMQ_QUEUE_ARGUMENTS

#: What Rust knows under the same name.
SAME = ("queue_arguments", "binding_arguments", "consumer_arguments", "durable", "exclusive", "auto_delete", "no_ack")


def plain(queue: Queue) -> Optional[dict[str, Any]]:
    """A queue as ``task_queues`` has it in plain types; ``None``: it is bound in a way that these have no words for."""
    exchange = queue.exchange
    if queue.bindings or queue.no_declare or (exchange is not None and (exchange.arguments or exchange.no_declare)):
        return None
    found = {"name": queue.name, **{name: getattr(queue, name) for name in SAME}}
    if exchange is not None and exchange.name:
        found.update(exchange=exchange.name, exchange_type=exchange.type, delivery_mode=exchange.delivery_mode)
    if queue.routing_key:
        found["routing_key"] = queue.routing_key
    limits = {
        argument: convert(getattr(queue, name))
        for name, (argument, convert) in RABBITMQ_QUEUE_ARGUMENTS.items()
        if getattr(queue, name, None) is not None
    }
    if limits:
        found["queue_arguments"] = {**limits, **(queue.queue_arguments or {})}
    return {name: value for name, value in found.items() if value not in (None, "")}


def table(queues: Any) -> Any:
    """``task_queues`` in plain types; as it is where these have no words for it."""
    if isinstance(queues, Mapping):
        queues = [
            queue if isinstance(queue, Queue) else {"routing_key": queue.get("binding_key") or name, **queue, "name": name}
            for name, queue in queues.items()
        ]
    if not isinstance(queues, (list, tuple, set, frozenset)):
        return queues
    found = [plain(queue) if isinstance(queue, Queue) else queue for queue in queues]
    return queues if None in found else found


class Consumed:
    """What is consumed beside, and not any more, once the project's receivers have had their say."""

    def __init__(self, app, select: tuple[str, ...], exclude: tuple[str, ...]):
        self.queues = app.amqp.queues
        # What cannot be selected Rust refuses, in words of its own.
        with suppress(KeyError):
            self.queues.select(select)
            self.queues.deselect(exclude)
        self.before = dict(self.queues.consume_from)

    def changes(self) -> dict[str, Any]:
        """What has been added since, in plain types, and the names of what is left out."""
        now = self.queues.consume_from
        added = [queue for name, queue in now.items() if self.before.get(name) is not queue]
        for queue in added:
            if plain(queue) is None:
                raise ValueError(f"the queue {queue.name} has bindings that this worker does not know: name one exchange")
        return {
            "added": [plain(queue) for queue in added],
            "removed": [name for name in self.before if name not in now],
        }
