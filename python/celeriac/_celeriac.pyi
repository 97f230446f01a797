from typing import Any, Callable, Optional, final

__all__ = ["Channel", "run", "version", "without_effect"]

#: The release.
version: str

@final
class Channel:
    """A child's line to the parent: calls come, and what became of each goes."""

    def __new__(cls, fd: int) -> Channel: ...
    def next(
        self,
    ) -> Optional[
        tuple[str, str, dict[str, Any], bytes, Optional[str], Optional[str], Optional[list[Any]]]
    ]: ...
    def ready(self) -> None: ...
    def flush(self) -> None: ...
    def accepted(self) -> None: ...
    def store(
        self,
        task_id: str,
        state: str,
        payload: bytes,
        wait: bool,
        reply_to: Optional[str] = None,
        correlation_id: Optional[str] = None,
    ) -> bool: ...
    def success(self, result: str, runtime: float) -> None: ...
    def failure(
        self, exc_type: str, exc_module: Optional[str], message: str, shown: str, traceback: str
    ) -> None: ...
    def retry(
        self, exc_type: str, exc_module: Optional[str], message: str, shown: str, traceback: str
    ) -> None: ...
    def ignore(self) -> None: ...
    def reject(self, reason: str, requeue: bool) -> None: ...
    def undecodable(self, reason: str, refused: bool) -> None: ...
    def lost(self, how: str) -> None: ...

def run(
    arguments: list[str],
    name: str,
    pool: str,
    concurrency: int,
    settings: dict[str, Any],
    tell: Callable[[bool], str],
    prepare: Callable[
        [str, str, Optional[str], bool, list[str]],
        Optional[tuple[int, dict[str, Any], list[tuple[str, dict[str, Any]]], Any, list[str]]],
    ],
    line: Optional[int] = None,
) -> int: ...
def without_effect(settings: dict[str, Any]) -> list[str]: ...
