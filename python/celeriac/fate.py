"""What becomes of a task that has no process to say so, carried out as Celery's main process does.

The request is Celery's own (celery/worker/request.py): it stores, calls errbacks, tells the chord, and fires the signals
and hooks. The worker has the message, and settles it when that is done.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional

from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery import signals
from celery.app.task import Context
from celery.exceptions import Reject
from celery.utils.log import get_logger
from celery.worker import request as requests
from kombu.message import Message
from kombu.utils.encoding import safe_repr

#: What a message is settled with.
ACK, REQUEUE, REJECT = "ack", "requeue", "reject"

logger = get_logger(__name__)

_silence = threading.RLock()


class Carried(requests.Request):
    """A request whose message somebody else has. Of a body that is not to be read, ``unread`` is what follows the task."""

    def __init__(
        self, app, accept, request: dict[str, Any], body: bytes, content_type, content_encoding,
        unread: Optional[dict[str, Any]] = None,
    ):
        #: What Celery would settle the message with.
        self.settlement: Optional[str] = None
        #: The result that was there before.
        self.stored: Optional[dict[str, Any]] = None
        #: What it is sent again for, and the traceback of that, once it is.
        self.retried: Optional[tuple[BaseException, str]] = None
        self._lost: Optional[tuple[BaseException, str]] = None
        properties = {**request.get("properties", {}), **{
            name: request[name] for name in ("reply_to", "correlation_id") if request.get(name) is not None
        }}
        decoded: dict[str, Any] = {}
        if unread is not None:
            body, decoded = b"", {"decoded": True, "body": ([], {}, unread)}
            request = {name: value for name, value in request.items() if name != "compression"}
        message = Message(
            body=body, content_type=content_type, content_encoding=content_encoding, headers=request,
            properties=properties, delivery_info=request.get("delivery_info"), accept=accept,
        )
        super().__init__(
            message, app=app, hostname=request["hostname"], headers=request,
            on_ack=self._acked, on_reject=self._rejected, **decoded,
        )

    def _acked(self, *_) -> None:
        self.settlement = ACK

    def _rejected(self, _logger, _errors, requeue=False) -> None:
        self.settlement = REQUEUE if requeue else REJECT

    def _success_was_stored(self):
        self.stored = super()._success_was_stored()
        return self.stored

    def _retry_worker_lost(self, exc, exc_info):
        self._lost = exc, exc_info.traceback
        try:
            # Only here it is known after how long it is run again, or why it cannot be sent.
            with _heard():
                return super()._retry_worker_lost(exc, exc_info)
        except Exception as error:
            if self.retried is None:
                raise
            logger.exception("Task %s[%s] is retried, and a hook raised error: %r", self.name, self.id, error)
            return True

    def send_event(self, type, **fields):
        # The message is sent, and the state is stored: whatever the hooks do from here on, it is retried.
        if type == "task-retried":
            self.retried = self._lost


def carry_out(app, accept, call: tuple, fate: list) -> tuple[str, Any]:
    """Carries out a fate; returns what became of the message, or what Celery knew better, and of what kind that is."""
    how, kind, module, args, signum, is_expired, unread = fate
    message = *call[2:], unread
    with _silent(), databases_closed(app):
        if how == "failed":
            _fail(app, accept, message, kind, module, args)
            return ACK, None
        carried = Carried(app, accept, *message)
        if how == "time limit":
            carried.on_timeout(False, *args)
        elif how == "lost":
            carried.on_failure(_raised(WorkerLostError(*args)))
        elif how == "rejected":
            carried.on_failure(_raised(Reject(*args)))
        elif how == "revoked":
            carried._announce_revoked(args[0], signum is not None, signum, is_expired)
        else:
            carried._announce_cancelled()
    if carried.stored:
        return "stored", safe_repr(carried.stored.get("result"))
    if carried.retried:
        return "retried", carried.retried
    return carried.settlement or ACK, None


def fail(app, accept, call: tuple, einfo: ExceptionInfo) -> None:
    """Fails a task that has raised what the tracer lets pass, as Celery's main process does when it hears of that."""
    with _silent(), databases_closed(app):
        Carried(app, accept, *call[2:]).on_failure(einfo)


def _fail(app, accept, message: tuple, kind, module, args) -> None:
    """Fails a task that is not run. Of one whose body nobody can read only the request is known."""
    request = message[0]
    error = app.backend.exception_to_python({"exc_type": kind, "exc_module": module, "exc_message": args})
    task = app.tasks[request["task"]]
    try:
        carried = Carried(app, accept, *message)
    except Exception:
        context, store = Context(request), not task.ignore_result or task.store_errors_even_if_ignored
    else:
        context, store = carried._context, carried.store_errors
    task.backend.mark_as_failure(request["id"], error, request=context, store_result=store)
    einfo = _raised(error)
    signals.task_failure.send(
        sender=task, task_id=request["id"], exception=error, args=context.args, kwargs=context.kwargs,
        traceback=einfo.traceback, einfo=einfo,
    )


def _raised(error: BaseException) -> ExceptionInfo:
    try:
        raise error
    except type(error):
        return ExceptionInfo()


@contextmanager
def _silent() -> Iterator[None]:
    """The worker says in the log what became of the task, and has the signal sent in the main process."""
    logger = logging.getLogger(requests.__name__)
    # Two threads of a pool of threads may do this at a time.
    with _silence:
        send = requests.send_revoked
        logger.disabled, requests.send_revoked = True, lambda *_, **__: None
        try:
            yield
        finally:
            logger.disabled, requests.send_revoked = False, send


@contextmanager
def _heard() -> Iterator[None]:
    """What the request says is logged after all."""
    logger = logging.getLogger(requests.__name__)
    logger.disabled = False
    try:
        yield
    finally:
        logger.disabled = True


@contextmanager
def databases_closed(app) -> Iterator[None]:
    """No connection of Django's is used that has been idle, and none is kept: as around each task."""
    _close_databases(app)
    try:
        yield
    finally:
        app.backend.process_cleanup()
        _close_databases(app)


def _close_databases(app) -> None:
    for fixup in getattr(app, "_fixups", ()):
        worker_fixup = getattr(fixup, "worker_fixup", None)
        if worker_fixup is not None:
            worker_fixup.close_database()
