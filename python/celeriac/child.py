"""A child: runs one task at a time, through Celery's own tracer."""

import multiprocessing
import os
import signal
import sys
import threading
from typing import Optional

from billiard import common, util
from billiard.common import human_status
from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import SoftTimeLimitExceeded
from billiard.process import current_process
from celery.app import trace
from celery.concurrency.prefork import process_destructor, process_initializer
from celery.exceptions import Ignore, Reject, Retry
from celery.utils.serialization import get_pickled_exception
from kombu.compression import decompress
from kombu.exceptions import ContentDisallowed
from kombu.serialization import loads, registry
from kombu.utils import json
from kombu.utils.encoding import safe_repr, safe_str

from celeriac import backend, coroutines
from celeriac._celeriac import Channel
from celeriac.fate import REQUEUE, carry_out, fail
from celeriac.limits import EX_RECYCLE, Limits

JSON = "application/json"
#: What is longer, in bytes, may take a while to be read.
SHORT = 64 << 10
#: By this the reader of JSON knows what it has others read (kombu/utils/json.py ``object_hook``). It may be written with escapes.
MARK, ESCAPE = b"__type__", b"\\u00"


def run(app, hostname: str, limits: Limits, index: int, place: int, line: int, claims: int) -> int:
    """Runs tasks until there will be no more, and returns the exit code. ``index`` is never given again, and ``place`` is
    the lowest that is free."""
    channel = Channel(line, claims)
    name = f"ForkPoolWorker-{index}"
    current_process()._name = multiprocessing.current_process().name = name
    # Names of log files have it in them (`%I`).
    current_process().index = multiprocessing.current_process().index = place
    forget()
    process_initializer(app, hostname)
    # A signal that ends the process lets `finally` run first.
    common.reset_signals()
    backend.hand_over(app, channel)
    code = 0
    try:
        code = Child(app, channel, limits).work()
    except ConnectionError:
        # The parent is gone, and nobody is left to tell.
        code = 1
    except SystemExit as exit:
        code = exit_code(exit)
        part(channel)
    # Who hangs from here on is ended by the parent after a while.
    backend.take_back()
    channel.close()
    process_destructor(os.getpid(), code)
    util._exit_function()
    flush()
    return code


def part(channel: Channel) -> None:
    """Tells what has ended before a signal came."""
    try:
        channel.flush()
    except ConnectionError:
        # The parent is gone, and nobody is left to tell.
        pass


def is_ending() -> bool:
    """Whether a signal is ending this process: what it runs has not come to its own end, and nothing is said of it
    (billiard/pool.py ``Worker.workloop``)."""
    return common._should_have_exited[0]


def forget() -> None:
    """Leaves what cannot be shared with the process that this was forked from: what stands at the beginning of each of
    Billiard's processes (billiard/process.py ``BaseProcess._bootstrap``)."""
    try:
        sys.stdin.close()
    except (AttributeError, OSError, ValueError):
        pass
    sys.stdin = open(os.devnull)
    util._finalizer_registry.clear()
    # Connections, and the pools that keep them.
    util._run_after_forkers()


class Child:
    """The loop of a child."""

    def __init__(self, app, channel: Channel, limits: Limits):
        self.app = app
        self.channel = channel
        self.limits = limits
        self.completed = 0
        self.is_running = False
        #: Its soft limit came after its body was read, and before it began.
        self.is_overdue = False
        self.pid = os.getpid()
        _, self.accept, self.hostname = trace._localized
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGUSR1, self.on_soft_limit)

    def work(self) -> int:
        """Runs what comes, and returns the exit code."""
        channel, next_call = self.channel, self.channel.next
        channel.ready()
        while True:
            call = next_call()
            if call is None:
                return EX_RECYCLE if self.limits.is_spent(self.completed) else 0
            was_run = self.take(call)
            # What came with it is not kept until the next one comes.
            del call
            if was_run and self.limits.is_too_large():
                # What was given to it and has not begun goes to another.
                channel.flush()
                return EX_RECYCLE

    def take(self, call: tuple) -> bool:
        """Does what a call says; whether that was to run a task."""
        channel = self.channel
        name, uuid, request, body, content_type, content_encoding, fate = call
        self.is_overdue = False
        if fate is not None:
            self.conclude(call[:-1], fate)
            return False
        try:
            if self.is_read_at_once(request, body, content_type):
                payload = self.decode(request, body, content_type, content_encoding)
            else:
                payload = self.read(request, body, content_type, content_encoding)
        except Exception as error:
            channel.undecodable(clean(error), isinstance(error, ContentDisallowed))
            return False
        channel.accepted()
        self.trace(name, uuid, request, payload, call[:-1])
        self.completed += 1
        return True

    def is_read_at_once(self, request: dict, body: bytes, content_type: Optional[str]) -> bool:
        """Whether to decode a body takes no time worth telling, and runs nothing of the project's."""
        return (
            content_type == JSON
            and len(body) <= SHORT
            and MARK not in body
            and ESCAPE not in body
            and not request.get("compression")
            and registry._decoders.get(JSON) is json.loads
        )

    def read(self, request: dict, body: bytes, content_type: Optional[str], content_encoding: Optional[str]):
        """Decodes what may take long, or never end: what has ended is told before, and the limits of this one count."""
        self.channel.reading()
        try:
            self.is_running = True
            return self.decode(request, body, content_type, content_encoding)
        finally:
            self.is_running = False

    def decode(self, request: dict, body: bytes, content_type: Optional[str], content_encoding: Optional[str]):
        """The body's three parts (kombu/message.py ``Message``)."""
        compression = request.get("compression")
        if compression:
            body = decompress(body, compression)
        args, kwargs, embed = loads(body, content_type, content_encoding, accept=self.accept)
        return args, kwargs, embed

    def trace(self, name: str, uuid: str, request: dict, payload: tuple, call: tuple) -> None:
        try:
            self.is_running = True
            try:
                if self.is_overdue:
                    raise SoftTimeLimitExceeded()
                # Looked up when it is needed: whoever instruments Celery may have replaced it.
                failed, result, runtime = trace.fast_trace_task(name, uuid, request, payload, None, None)
            finally:
                self.is_running = False
                if os.getpid() != self.pid:
                    # What a task has forked, and did not end, ends here: the line belongs to one process.
                    os._exit(0)
        except BaseException as error:
            if is_ending():
                raise
            self.escaped(error, call)
        else:
            if failed:
                self.ended(result)
            else:
                self.channel.success(clean(result), runtime or 0.0)

    def conclude(self, call: tuple, fate: list) -> None:
        """Carries out what has become of a task that is not run."""
        self.channel.accepted()
        try:
            end, told = carry_out(self.app, self.accept, call, fate)
        except BaseException as error:
            # An errback that is called in place may raise what it likes.
            if is_ending():
                raise
            self.escaped(error)
            return
        if end == "stored":
            self.channel.success(clean(told), 0.0)
        elif end == "retried":
            error, traceback = told
            self.channel.retry(*told_of(error), clean(traceback))
        elif end == REQUEUE:
            self.channel.reject("", True)
        else:
            self.channel.ignore()

    def escaped(self, error: BaseException, call: Optional[tuple] = None) -> None:
        """What the tracer has let pass; of a ``call`` that it ran it has stored nothing then."""
        if isinstance(error, Reject):
            self.channel.reject(clean(error.reason), bool(error.requeue))
        elif isinstance(error, (SystemExit, KeyboardInterrupt)):
            code = exit_code(error)
            self.channel.lost(human_status(code))
            raise SystemExit(code) from None
        else:
            einfo = trace.ExceptionInfo()
            if call is not None and not isinstance(error, MemoryError):
                fail(self.app, self.accept, call, einfo)
            self.raised(error, einfo.traceback)

    def ended(self, einfo) -> None:
        """What the tracer made of an exception (celery/worker/request.py ``Request.on_failure``)."""
        error = einfo.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        if isinstance(error, Retry):
            self.channel.retry(*told_of(error.exc), clean(einfo.traceback))
        elif isinstance(error, Reject):
            self.channel.reject(clean(error.reason), bool(error.requeue))
        elif isinstance(error, Ignore):
            self.channel.ignore()
        else:
            self.raised(error, einfo.traceback)

    def raised(self, error: BaseException, traceback: str) -> None:
        self.channel.failure(*told_of(get_pickled_exception(error)), clean(traceback))

    def on_soft_limit(self, *_) -> None:
        # One that comes when its task has just ended is nobody's.
        self.is_overdue = not self.is_running
        if self.is_running and not coroutines.interrupt():
            raise SoftTimeLimitExceeded()


def told_of(error) -> tuple[str, Optional[str], str, str]:
    """An exception's class, module, text and ``repr``."""
    kind = type(error)
    return clean(kind.__qualname__), clean(kind.__module__), clean(error), clean(safe_repr(error))


def clean(value) -> str:
    """A text that can be written as UTF-8."""
    text = safe_str(value)
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def exit_code(error: BaseException) -> int:
    """What a process exits with that this ends (celery/worker/request.py ``Request._worker_lost_info``)."""
    code = getattr(error, "code", 1)
    if code is None:
        return 0
    return code if isinstance(code, int) else 1


def flush() -> None:
    # Its integration does this around the loop of Billiard's processes, which end, as this does, without exit handlers.
    sentry = sys.modules.get("sentry_sdk")
    if sentry is not None:
        sentry.flush()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
