"""The project's boot steps: those that are started and stopped are, in their order; others are refused by their names.

Celery's own blueprints do it (celery/bootsteps.py), with the project's steps alone in them: what Celery has steps for is there
before these start.
"""

from collections.abc import Iterator
from graphlib import TopologicalSorter
from typing import Any, Optional

from celery import bootsteps
from celery.utils.log import get_logger
from kombu.utils.imports import symbol_by_name

from celeriac import parent

logger = get_logger("celery.bootsteps")

#: Steps of Celery's that others may require: what they provide is there.
PROVIDED = {
    "worker": ("celery.worker.components.Pool", "celery.worker.components.Timer"),
    "consumer": tuple(
        f"celery.worker.consumer.{module}.{name}"
        for module, name in (
            ("control", "Control"), ("events", "Events"), ("heart", "Heart"), ("mingle", "Mingle"), ("tasks", "Tasks"),
        )
    ),
}  # fmt: skip


def refused(app) -> Iterator[tuple[str, str]]:
    """The steps that cannot run here, by name, each with the reason."""
    for kind in PROVIDED:
        for step in family(app, kind):
            reason = refusal(step, kind)
            if reason:
                yield step.name, reason


def refusal(step: type, kind: str) -> Optional[str]:
    """Why a step cannot run here."""
    if issubclass(step, bootsteps.ConsumerStep):
        return "it consumes messages of its own over the connection of Celery's worker, which does not run here"
    if hasattr(step, "register_with_event_loop") or step.last:
        return "it belongs to the event loop of Celery's worker, which does not run here"
    for required in map(symbol_by_name, step.requires):
        if is_celerys(required) and required.name not in PROVIDED[kind]:
            return f"it requires {required.name}, a part of Celery's worker, which does not run here"
    return None


def is_celerys(step: type) -> bool:
    return step.name.startswith("celery.worker.")


def family(app, kind: str) -> list[type]:
    """The project's steps of that kind and those that they require, each after what it requires."""
    found, unseen = {}, [symbol_by_name(step) for step in app.steps[kind]]
    while unseen:
        step = unseen.pop()
        if step.name not in found and not is_celerys(step):
            found[step.name] = step
            unseen.extend(map(symbol_by_name, step.requires))
    graph = {
        name: sorted(required.name for required in map(symbol_by_name, found[name].requires) if required.name in found)
        for name in sorted(found)
    }
    return [found[name] for name in TopologicalSorter(graph).static_order()]


class Blueprint(bootsteps.Blueprint):
    """Celery's, with the project's steps alone."""

    def __init__(self, app, kind: str):
        self.family = family(app, kind)
        super().__init__(self.family, name=kind.capitalize())

    def _finalize_steps(self, steps):
        return self.family


class Steps:
    """The steps of a worker and of its consumer."""

    def __init__(self, worker: parent.Worker):
        self.worker = worker
        self.consumer = worker.consumer
        self.of_worker = Blueprint(worker.app, "worker")
        self.of_consumer = Blueprint(worker.app, "consumer")
        options = {"loglevel": worker.loglevel, "logfile": worker.logfile, **worker.options}
        self.of_worker.apply(worker, **options)
        self.of_consumer.apply(self.consumer, **options)

    def __bool__(self) -> bool:
        return bool(self.worker.steps or self.consumer.steps)

    def start(self) -> None:
        """The worker begins: its pool is there, and it consumes nothing yet."""
        self.of_worker.start(self.worker)

    def connected(self) -> None:
        """The worker consumes."""
        try:
            self.of_consumer.start(self.consumer)
        except Exception as error:
            logger.critical("Unrecoverable error: %r", error, exc_info=True)
            self.worker.shut_down(False, f"a boot step could not start: {error!r}")

    def disconnected(self) -> None:
        """It does so no more, until it is connected again."""
        if self.of_consumer.state == bootsteps.RUN:
            self.of_consumer.restart(self.consumer)

    def stop(self, cold: bool) -> None:
        """The worker takes nothing more."""
        self.of_consumer.stop(self.consumer)
        self.of_worker.stop(self.worker, terminate=cold)

    def end(self) -> None:
        """The worker has ended."""
        if self.of_worker.state == bootsteps.RUN:
            self.stop(False)
        self.of_consumer.send_all(self.consumer, "shutdown", propagate=False)
