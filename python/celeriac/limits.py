"""How long a child lives: its limits, as Billiard's processes have them (billiard/pool.py ``Worker.workloop``)."""

from dataclasses import dataclass
from typing import Optional

from billiard.compat import mem_rss
from billiard.pool import EX_RECYCLE, MAXMEM_USED_FMT
from billiard.util import error, warning

__all__ = ("EX_RECYCLE", "Limits")


@dataclass(frozen=True)
class Limits:
    """When a child is replaced; ``None``: never."""

    max_tasks: Optional[int] = None
    #: In KiB, of the most memory that was ever resident.
    max_memory: Optional[int] = None

    @classmethod
    def of(cls, app, options) -> "Limits":
        """What the command line says, or else the settings."""
        conf = app.conf
        return cls(
            options.max_tasks_per_child or conf.worker_max_tasks_per_child or None,
            options.max_memory_per_child or conf.worker_max_memory_per_child or None,
        )

    def is_spent(self, completed: int) -> bool:
        """Whether it has run as many tasks as it may."""
        return self.max_tasks is not None and completed >= self.max_tasks

    def is_too_large(self) -> bool:
        """Whether this process has had more memory than it may, which is logged then."""
        if not self.max_memory:
            return False
        used = mem_rss()
        if used <= 0:
            error("worker unable to determine memory usage")
            return False
        if used > self.max_memory:
            warning(MAXMEM_USED_FMT.format(used, self.max_memory))
            return True
        return False
