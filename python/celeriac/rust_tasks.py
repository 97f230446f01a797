"""Tasks in Rust, from a module that ``celeriac_python::python_tasks!`` made, as Celery's own.

Celeriac's worker runs them itself. Wherever else they are called, in a stock worker, eagerly or as functions, Celery runs
what is made here: the handler, to its end and without the GIL.
"""

import importlib
import inspect
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NoReturn, Optional

from billiard.einfo import RemoteTraceback
from celery import Task, shared_task
from celery.exceptions import Ignore, Reject
from celery.utils.time import get_exponential_backoff_interval

from celeriac import _celeriac

#: What a parameter takes, in Python's words.
KINDS = {"args": inspect.Parameter.VAR_POSITIONAL, "kwargs": inspect.Parameter.VAR_KEYWORD}
#: What of a message's headers stands in a request under a name of its own.
HEADERS = (
    "lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit", "root_id",
    "parent_id", "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers", "stamps",
)
REQUEST = (
    "id", "retries", "root_id", "parent_id", "group", "group_index", "eta", "expires", "hostname", "delivery_info",
    "reply_to", "correlation_id",
)


@dataclass(frozen=True)
class RustModule:
    """A module of Rust tasks."""

    name: str
    #: What runs a worker with these tasks in it, as ``celeriac._celeriac.run`` does without.
    worker: Any
    #: The release of Celeriac that it was built with.
    version: str


#: Those that are imported.
modules: list[RustModule] = []


def declare(module: ModuleType, handlers: list, worker: Any, version: str) -> None:
    """Makes Celery's tasks of the handlers, for every app; called by the module when it is imported."""
    for handler in handlers:
        setattr(module, handler.function, task_of(handler, module.__name__))
    modules.append(RustModule(module.__name__, worker, version))


def refusal() -> Optional[str]:
    """Why no worker can be run with the modules that are imported."""
    for module in modules:
        if module.version != _celeriac.version:
            return (
                f"the Rust tasks of {module.name} were built with Celeriac {module.version}, "
                f"and this is {_celeriac.version}: build {module.name} anew"
            )
    if len(modules) > 1:
        names = " and ".join(sorted(module.name for module in modules))
        return f"a worker has one module of Rust tasks: put the tasks of {names} into one crate"
    return None


def task_of(handler, module: str) -> Task:
    """Celery's task for a handler."""

    def run(self, *args, **kwargs):
        return handler.run(Host(self), request_of(self), args, kwargs)

    run.__name__ = run.__qualname__ = handler.function
    run.__module__ = module
    signature = signature_of(handler.parameters)
    if signature is not None:
        run.__signature__ = signature
    options = dict(handler.options)
    if options.pop("autoretry", False):
        options["autoretry_for"] = (Exception,)
    return shared_task(name=handler.name, bind=True, **options)(run)


def signature_of(parameters: Optional[list[tuple[str, str]]]) -> Optional[inspect.Signature]:
    """What calls are checked against where they are made; ``None`` for what Python could not declare."""
    if parameters is None:
        return None
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    found = [inspect.Parameter("self", kind)]
    try:
        for name, takes in parameters:
            default = ... if takes == "optional" else inspect.Parameter.empty
            found.append(inspect.Parameter(name, KINDS.get(takes, kind), default=default))
            if takes == "args":
                kind = inspect.Parameter.KEYWORD_ONLY
        return inspect.Signature(found)
    except ValueError:
        return None


def request_of(task: Task) -> dict[str, Any]:
    """What a handler can know of its run."""
    request = task.request
    given = {name: getattr(request, name, None) for name in REQUEST}
    headers = {name: getattr(request, name, None) for name in HEADERS}
    return {**given, "task": task.name, "headers": {**headers, "task": task.name, **(request.headers or {})}}


class Host:
    """What a handler's worker is to it, done by Celery."""

    def __init__(self, task: Task):
        self.task = task

    def update_state(self, state: str, meta: Any) -> None:
        # A task that is called as a function has no result.
        if self.task.request.id:
            self.task.update_state(state=state, meta=meta)

    def send(self, signature: dict) -> tuple:
        return self.canvas(signature).apply_async().as_tuple()

    def add_to_chord(self, signature: dict) -> tuple:
        return self.task.add_to_chord(self.canvas(signature)).as_tuple()

    def canvas(self, signature: dict):
        return self.task.app.signature(signature)

    def replace(self, signature: dict) -> Any:
        return self.task.replace(self.canvas(signature))

    def retry(self, wish: dict) -> NoReturn:
        exc = wish.pop("exc", None)
        if exc is not None:
            exc = self.exception(exc)
        if "eta" not in wish and "countdown" not in wish:
            wish["countdown"] = self.backoff()
        raise self.task.retry(exc=exc, **wish)

    def backoff(self) -> Optional[float]:
        """For how long a task waits that is to wait longer each time; ``None``: for its default delay."""
        factor = getattr(self.task, "retry_backoff", None)
        if not factor:
            return None
        return get_exponential_backoff_interval(
            factor=int(max(1.0, factor)),
            retries=self.task.request.retries,
            maximum=getattr(self.task, "retry_backoff_max", 600),
            full_jitter=getattr(self.task, "retry_jitter", True),
        )

    def fail(self, exception: dict, traceback: Optional[str]) -> NoReturn:
        raise self.exception(exception) from (RemoteTraceback(traceback) if traceback else None)

    def exception(self, exception: dict) -> BaseException:
        """The exception of that name, as a client makes it; its module is imported if there is one."""
        try:
            importlib.import_module(exception["exc_module"] or "builtins")
        except ImportError:
            pass
        return self.task.backend.exception_to_python(exception)

    def ignore(self) -> NoReturn:
        raise Ignore()

    def reject(self, reason: str, requeue: bool) -> NoReturn:
        raise Reject(reason, requeue)
