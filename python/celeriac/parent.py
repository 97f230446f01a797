"""The main process as a project sees it: the signals that Celery sends there, and what stands for who sends them.

Rust runs the worker. What it tells, it tells on a thread of its own, in order, and only if the signal had receivers when the
worker began.
"""

import os
from functools import cached_property
from typing import Any, Optional

from celery import concurrency, signals
from celery.app import trace
from celery.exceptions import InvalidTaskError, NotRegistered, WorkerTerminate
from celery.platforms import EX_FAILURE
from celery.utils.imports import symbol_by_name
from celery.utils.timer2 import Timer
from kombu import Queue
from kombu.message import Message

from celeriac import queues
from celeriac.child import exit_code

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


class StandIn:
    """Stands for a part of Celery's worker, and says what of it is not there."""

    #: The class that it stands for.
    stands_for: str

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{self.stands_for} has no {name!r} here: the worker is Celeriac, and its parts are in Rust")


class Worker(StandIn):
    """Stands for ``celery.apps.worker.Worker``."""

    stands_for = "celery.apps.worker.Worker"
    #: What steers the worker, once there is one.
    reins: Optional[Any] = None
    #: What restarts its pool.
    panel: Optional[Any] = None
    #: What its process exits with, if it ends well and what has ended it says so.
    exitcode: Optional[int] = None

    def __init__(self, app, hostname: str, pool: str, loglevel: str, logfile: Optional[str]):
        self.app = app
        self.hostname = hostname
        self.loglevel = loglevel
        self.logfile = logfile
        self.pid = os.getpid()
        #: The project's boot steps, in their order.
        self.steps: list[Any] = []
        #: What the command line says under the project's own options.
        self.options: dict[str, Any] = {}
        # Django's fixup closes databases by it.
        self.pool_cls = concurrency.get_implementation(pool)
        self.pool = AsynPool(self)
        self.consumer = Consumer(self)

    def ask(self, method: str, **arguments) -> Any:
        """Has one of the worker's own commands carried out, and returns its answer."""
        if self.reins is None:
            raise RuntimeError(f"{method}: the worker has not begun yet")
        answer = self.reins.ask(method, arguments)
        if isinstance(answer, dict) and "error" in answer:
            raise ValueError(answer["error"])
        return answer

    @cached_property
    def timer(self) -> Timer:
        """Celery's own timer, whose thread begins with what is first put into it."""
        return Timer()

    @property
    def concurrency(self) -> int:
        return self.pool.num_processes

    def stats(self) -> dict[str, Any]:
        return self.ask("stats")

    def reload(self, modules=None, reload: bool = False, reloader=None) -> None:
        if self.panel is None:
            raise RuntimeError("the worker has not begun yet, and has no pool to restart")
        self.panel.restart(modules, reload, reloader)

    def stop(self, in_sighandler: bool = False, exitcode: Optional[int] = None) -> None:
        if exitcode is not None:
            self.exitcode = exitcode
        self.shut_down(False)

    def terminate(self, in_sighandler: bool = False) -> None:
        self.shut_down(True)

    def leave(self, end: BaseException) -> None:
        """Ends because something of the project has raised what ends a process (celery/worker/worker.py
        ``WorkController.start``)."""
        if isinstance(end, WorkerTerminate):
            self.terminate()
        else:
            self.stop(exitcode=exit_code(end) if isinstance(end, SystemExit) else EX_FAILURE)

    def shut_down(self, cold: bool, failure: Optional[str] = None) -> None:
        if self.reins is not None:
            self.reins.shut_down(cold, failure)


class Consumer(StandIn):
    """Stands for ``celery.worker.consumer.Consumer``."""

    stands_for = "celery.worker.consumer.Consumer"

    def __init__(self, controller: Worker):
        self.app = controller.app
        self.hostname = controller.hostname
        self.pid = controller.pid
        self.controller = controller
        self.pool = controller.pool
        self.heart = Heart(self)
        self.qos = QoS(controller)
        self.steps: list[Any] = []

    @property
    def timer(self) -> Timer:
        return self.controller.timer

    @cached_property
    def event_dispatcher(self):
        """Celery's own, over a connection of its own."""
        return self.app.events.Dispatcher(self.app.connection_for_write(), hostname=self.hostname)

    def call_soon(self, function, *args, **kwargs) -> None:
        # It waits for no broker.
        function(*args, **kwargs)

    def add_task_queue(self, queue, exchange=None, exchange_type=None, routing_key=None, **options) -> None:
        """Has one more queue consumed, by its name or as kombu's object."""
        if isinstance(queue, Queue):
            options.update(queues.plain(queue) or {}, **options)
            queue = options.pop("name", queue.name)
        given = {"exchange": exchange, "exchange_type": exchange_type, "routing_key": routing_key, **options}
        self.controller.ask("add_consumer", queue=queue, **{name: value for name, value in given.items() if value})

    def cancel_task_queue(self, queue) -> None:
        self.controller.ask("cancel_consumer", queue=getattr(queue, "name", queue))


class QoS(StandIn):
    """Stands for ``kombu.common.QoS``: the prefetch window."""

    stands_for = "kombu.common.QoS"

    def __init__(self, controller: Worker):
        self.controller = controller

    @property
    def value(self) -> int:
        return self._widen(0)

    @property
    def prev(self) -> int:
        """What the broker was told: the worker tells it at once."""
        return self.value

    def increment_eventually(self, n: int = 1) -> int:
        return self._widen(max(n, 0))

    def decrement_eventually(self, n: int = 1) -> int:
        return self._widen(-n)

    def set(self, pcount: int) -> int:
        self._widen(pcount - self.value)
        return pcount

    def update(self) -> int:
        return self.value

    def _widen(self, by: int) -> int:
        if self.controller.reins is None:
            raise RuntimeError("the worker has not begun yet, and has no prefetch window")
        return self.controller.reins.widen(by)


class AsynPool(StandIn):
    """Stands for ``celery.concurrency.asynpool.AsynPool``."""

    stands_for = "celery.concurrency.asynpool.AsynPool"

    def __init__(self, controller: Worker):
        self.app = controller.app
        self.controller = controller

    @property
    def info(self) -> dict[str, Any]:
        return self.controller.stats()["pool"]

    @property
    def num_processes(self) -> int:
        return self.info["max-concurrency"]

    def grow(self, n: int = 1) -> None:
        self.controller.ask("pool_grow", n=n)

    def shrink(self, n: int = 1) -> None:
        self.controller.ask("pool_shrink", n=n)


class Heart(StandIn):
    """Stands for ``celery.worker.heartbeat.Heart``."""

    stands_for = "celery.worker.heartbeat.Heart"

    def __init__(self, consumer: Consumer):
        self.consumer = consumer


class Signals:
    """Sends Celery's signals."""

    def __init__(self, worker: Worker, steps):
        self.worker = worker
        self.consumer = worker.consumer
        #: The project's boot steps.
        self.steps = steps

    def wanted(self) -> list[str]:
        """Which of them anybody listens to, and whether there are boot steps."""
        wanted = [name for name in TOLD if getattr(signals, name).receivers]
        return [*wanted, "steps"] if self.steps else wanted

    def leave(self, end: BaseException) -> None:
        """One of them had a receiver, or a boot step, that wants the worker to end."""
        self.worker.leave(end)

    def connected(self) -> None:
        self.steps.connected()

    def disconnected(self) -> None:
        self.steps.disconnected()

    def stopping(self, cold: bool) -> None:
        self.steps.stop(cold)

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
        self.steps.end()
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
