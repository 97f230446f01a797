"""What Celery's worker knows of its tasks (``celery.worker.state``), for the project's commands: as it is when one begins."""

import threading
from typing import Any

from celery.worker import state

from celeriac.parent import StandIn, Worker

_lock = threading.Lock()


class Request(StandIn):
    """Stands for ``celery.worker.request.Request``."""

    stands_for = "celery.worker.request.Request"

    def __init__(self, worker: Worker, told: dict[str, Any]):
        self._worker = worker
        self._told = told
        self.__dict__.update(told)
        self.app = worker.app
        self.task_id, self.task_name = self.id, self.name = told["id"], told["name"]

    @property
    def task(self):
        return self.app.tasks[self.name]

    def info(self, safe: bool = False) -> dict[str, Any]:
        return self._told

    def terminate(self, pool, signal=None) -> None:
        self._worker.ask("terminate", task_id=self.id, signal=signal or "SIGTERM")


def refresh(worker: Worker) -> None:
    """Puts what the worker knows where a command looks for it. The sets stay the same: others have imported them."""
    active = [Request(worker, told) for told in worker.ask("active")]
    reserved = [Request(worker, told) for told in worker.ask("reserved")]
    revoked, total = worker.ask("revoked"), worker.stats()["total"]
    with _lock:
        state.requests.clear()
        state.requests.update((request.id, request) for request in [*active, *reserved])
        for requests, known in ((state.active_requests, active), (state.reserved_requests, [*active, *reserved])):
            requests.clear()
            requests.update(known)
        state.revoked.clear()
        state.revoked.update(revoked)
        state.total_count.clear()
        state.total_count.update(total)
        state.all_total_count[0] = sum(total.values())
