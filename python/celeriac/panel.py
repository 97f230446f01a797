"""Remote control as far as it is Python's: commands that the project has registered, and what only Kombu reads and writes.

Each command is called on a thread of its own, in the main process, one after the other unless one takes long.
"""

import sys
import threading
from contextlib import suppress
from typing import Any, Optional

from celery import states
from celery.app import trace
from celery.app.task import Context
from celery.utils.collections import AttributeDict
from celery.utils.imports import reload_from_cwd
from kombu import serialization
from kombu.compression import decompress
from kombu.log import get_logger

from celeriac import backend, fate, known, parent
from celeriac.renewal import Renewal

#: Where Celery says what becomes of commands.
logger = get_logger("kombu.pidbox")

#: What a revocation may replace: the states of what nobody has begun.
UNBEGUN = (states.PENDING, states.RECEIVED, states.RETRY, states.REJECTED)

#: The type of the content, its encoding, and the bytes.
Written = tuple[str, str, bytes]


def handlers() -> dict[str, Any]:
    """What there is for each command, by name."""
    # A project that has commands has imported this.
    control = sys.modules.get("celery.worker.control")
    return {} if control is None else control.Panel.data


def own() -> set[str]:
    """The commands of the project, those among them that it has put in the place of Celery's."""
    celerys = getattr(sys.modules.get("celery.worker.control"), "__dict__", {})
    return {name for name, handler in handlers().items() if celerys.get(handler.__name__) is not handler}


def is_own(arguments: list[str]) -> bool:
    """Whether a command line is about a command of the project."""
    return not own().isdisjoint(arguments)


class Panel:
    """Carries out the project's commands for one worker (kombu/pidbox.py ``Node``)."""

    def __init__(self, worker: parent.Worker, renewal: Optional[Renewal] = None):
        worker.panel = self
        #: What has the pool's processes replaced, if there are some.
        self.renewal = renewal
        self.app = worker.app
        self.worker = worker
        self.lock = threading.Lock()
        self.running = 0
        self.state = AttributeDict(app=worker.app, hostname=worker.hostname, consumer=worker.consumer, tset=set)

    def handler(self, method: str) -> Any:
        """What there is for a command."""
        if method == "pool_restart" and method not in own():
            return self.pool_restart
        return handlers()[method]

    def overriding(self) -> set[str]:
        """The commands that are carried out here though the worker has some of these names."""
        return {*own(), "pool_restart"}

    def writes(self) -> bool:
        """Whether clients want answers that only Kombu can write."""
        return self.app.conf.task_serializer not in backend.SERIALIZERS

    def backend(self) -> Optional[str]:
        """The address of the app's result backend, if only Celery has it."""
        return backend.celerys(self.app)

    def fail(self, id: str, parts: parent.Parts, kind: str, module: Optional[str], args: list) -> None:
        """Stores the failure of a task that cannot be run, and tells its chord."""
        message = parent.message(*parts)
        with suppress(Exception):
            # What was to follow it, where that can be read.
            message.headers.update((message.payload[2] if isinstance(message.payload, (list, tuple)) else message.payload))
        request = Context({**message.headers, **message.properties, "id": id, "errbacks": None})
        error = self.app.backend.exception_to_python({"exc_type": kind, "exc_module": module, "exc_message": args})
        with fate.databases_closed(self.app):
            self.app.backend.mark_as_failure(id, error, request=request)

    def revoke(self, ids: list[str]) -> None:
        """Stores that tasks were revoked, but for those that somebody has begun or ended."""
        with fate.databases_closed(self.app):
            for id in ids:
                if self.app.backend.get_state(id) in UNBEGUN:
                    self.app.backend.mark_as_revoked(id, reason="revoked", store_result=True)

    def begins(self, reins) -> None:
        """The worker begins, which is steered by these."""
        self.worker.reins = reins

    def obey(self, method: str, arguments: dict[str, Any], is_asked: bool) -> Optional[Written]:
        """Carries out a command; returns what is answered, if somebody waits for that."""
        with self.lock:
            self.running += 1
        try:
            answer = self.dispatch(method, arguments)
            return self.write({self.worker.hostname: answer}) if is_asked else None
        except SystemExit as end:
            self.worker.leave(end)
        except Exception as error:
            logger.error("Control command error: %r", error, exc_info=True)
        finally:
            with self.lock:
                self.running -= 1
        return None

    def dispatch(self, method: str, arguments: dict[str, Any]) -> Any:
        try:
            handler = self.handler(method)
            if method in own():
                known.refresh(self.worker)
            return handler(self.state, **arguments)
        except Exception as error:
            logger.error("pidbox command error: %r", error, exc_info=True)
            return {"error": repr(error)}

    def pool_restart(self, state, modules=None, reload=False, reloader=None, **_) -> dict[str, str]:
        """Celery's command (celery/worker/control.py ``pool_restart``)."""
        if not self.app.conf.worker_pool_restarts:
            raise ValueError("Pool restarts not enabled")
        self.restart(modules, reload, reloader)
        return {"ok": "reload started"}

    def restart(self, modules=None, reload: bool = False, reloader=None) -> None:
        """Has the project's code imported anew (celery/worker/worker.py ``WorkController.reload``): in this process as there,
        and for the pool in another."""
        for name in set(self.app.loader.task_modules if modules is None else modules or ()):
            if name not in sys.modules:
                self.app.loader.import_from_cwd(name)
            elif reload:
                reload_from_cwd(sys.modules[name], reloader)
        if self.renewal is not None:
            self.renewal.begin(self.worker.reins.renew_pool)
        else:
            # Threads run what is in this process.
            trace.setup_worker_optimizations(self.app, self.worker.hostname)
            for name, task in self.app.tasks.items():
                task.__trace__ = trace.build_tracer(name, task, self.app.loader, self.worker.hostname, app=self.app)

    def read(self, body: bytes, content_type, content_encoding, compression: Optional[str]) -> Any:
        """What a command's message holds."""
        if compression:
            body = decompress(body, compression)
        accept = serialization.prepare_accept_content(self.app.conf.accept_content)
        return serialization.loads(body, content_type, content_encoding, accept=accept)

    def write(self, answer: Any) -> Written:
        """An answer as Kombu writes it."""
        content_type, content_encoding, body = serialization.dumps(answer, serializer=self.app.conf.task_serializer)
        return content_type, content_encoding, body.encode() if isinstance(body, str) else body

    def is_busy(self) -> bool:
        """Whether a command has not ended: nobody can end it."""
        return self.running > 0
