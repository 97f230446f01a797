"""The main process as a project sees it: the signals that Celery sends there, and what stands for who sends them.

Rust runs the worker. What it tells, it tells on a thread of its own, in order, and only if the signal had receivers when the
worker began.
"""

import os
from typing import Any, Optional

from celery import concurrency, signals
from celery.app import trace
from celery.exceptions import InvalidTaskError, NotRegistered
from celery.utils.imports import symbol_by_name
from kombu.message import Message

#: The signals that Rust tells of.
TOLD = (
    "heartbeat_sent",
    "task_received",
    "task_rejected",
    "task_revoked",
    "task_unknown",
    "worker_ready",
    "worker_shutting_down",
)

#: Headers, properties, delivery info, the body, its type and its encoding.
Parts = tuple[dict[str, Any], dict[str, Any], dict[str, Any], bytes, Optional[str], Optional[str]]


class Worker:
    """Stands for ``celery.apps.worker.Worker``."""

    def __init__(self, app, hostname: str, pool: str, loglevel: str, logfile: Optional[str]):
        self.app = app
        self.hostname = hostname
        self.loglevel = loglevel
        self.logfile = logfile
        self.pid = os.getpid()
        # Django's fixup closes databases by it.
        self.pool_cls = concurrency.get_implementation(pool)
        self.pool = AsynPool(self)
        self.consumer = Consumer(self)


class Consumer:
    """Stands for ``celery.worker.consumer.Consumer``."""

    def __init__(self, controller: Worker):
        self.app = controller.app
        self.hostname = controller.hostname
        self.pid = controller.pid
        self.controller = controller
        self.pool = controller.pool
        self.heart = Heart(self)


class AsynPool:
    """Stands for ``celery.concurrency.asynpool.AsynPool``."""

    def __init__(self, controller: Worker):
        self.app = controller.app


class Heart:
    """Stands for ``celery.worker.heartbeat.Heart``."""

    def __init__(self, consumer: Consumer):
        self.consumer = consumer


class Signals:
    """Sends Celery's signals."""

    def __init__(self, worker: Worker):
        self.worker = worker
        self.consumer = worker.consumer

    @staticmethod
    def wanted() -> list[str]:
        """Which of them anybody listens to."""
        return [name for name in TOLD if getattr(signals, name).receivers]

    def received(self, *parts) -> None:
        signals.task_received.send(sender=self.consumer, request=self.request(message(*parts)))

    def revoked(self, parts: Parts, signum: Optional[int], expired: bool) -> None:
        request = self.request(message(*parts))
        signals.task_revoked.send(
            sender=request.task,
            request=request._context,
            terminated=signum is not None,
            signum=signum,
            expired=expired,
        )

    def rejected(self, parts: Parts, reason: Optional[str]) -> None:
        exc = None if reason is None else InvalidTaskError(reason)
        signals.task_rejected.send(sender=self.consumer, message=message(*parts), exc=exc)

    def unknown(self, parts: Parts, name: str, id: str) -> None:
        exc = NotRegistered(name)
        signals.task_unknown.send(sender=self.consumer, message=message(*parts), exc=exc, name=name, id=id)

    def ready(self) -> None:
        signals.worker_ready.send(sender=self.consumer)

    def beats(self) -> None:
        signals.heartbeat_sent.send(sender=self.consumer.heart)

    def shutting_down(self, sig: str, how: str, exitcode: int) -> None:
        signals.worker_shutting_down.send(sender=self.worker.hostname, sig=sig, how=how, exitcode=exitcode)

    def shutdown(self) -> None:
        """The last one, which needs no thread."""
        signals.worker_shutdown.send(sender=self.worker)

    def request(self, message: Message):
        """A request as Celery's strategy makes it (celery/worker/strategy.py ``default``)."""
        # Much of Celery's worker comes with these, for who listens.
        from celery.worker.strategy import hybrid_to_proto2, proto1_to_proto2

        app, payload = self.worker.app, message.payload
        headers, body, decoded, utc = message.headers, message.body, False, app.uses_utc_timezone()
        if "args" in payload:
            body, headers, decoded, utc = hybrid_to_proto2(message, payload)
        elif "task" not in headers:
            body, headers, decoded, utc = proto1_to_proto2(message, payload)
        task = app.tasks[headers["task"]]
        return symbol_by_name(task.Request)(
            message,
            app=app,
            hostname=self.worker.hostname,
            task=task,
            body=body,
            headers=headers,
            decoded=decoded,
            utc=utc,
        )


def message(headers, properties, delivery_info, body, content_type, content_encoding) -> Message:
    return Message(
        body=body,
        content_type=content_type,
        content_encoding=content_encoding,
        delivery_info=delivery_info,
        properties=properties,
        headers=headers,
        accept=trace._localized[1],
    )
