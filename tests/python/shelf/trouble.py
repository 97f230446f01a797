"""Tasks that nobody should write."""

import ctypes
import os
import signal
import threading
import time

from celery import shared_task

from .tasks import append


class Particular(Exception):
    """It is pickled and cannot be unpickled."""

    def __init__(self, one, other):
        super().__init__("particular")


@shared_task
def segfault():
    ctypes.string_at(0)


@shared_task
def flood(megabytes):
    for _ in range(megabytes):
        print("x" * (1 << 20))
    return megabytes


@shared_task
def unpicklable():
    class Local(Exception):
        pass

    raise Local(threading.Lock())


@shared_task
def particular():
    raise Particular(1, 2)


@shared_task
def homeless():
    raise type("Homeless", (Exception,), {"__module__": "nowhere.at.all"})("lost")


@shared_task
def fork():
    """Both processes return."""
    return os.fork() and os.getpid()


@shared_task
def threads():
    for _ in range(20):
        threading.Thread(target=time.sleep, args=(3600,)).start()
    return threading.active_count() > 20


@shared_task
def deaf():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        pass


@shared_task
def bomb(path, depth):
    append(path, depth)
    for _ in range(2 if depth else 0):
        bomb.apply_async((path, depth - 1), queue="bad")


@shared_task
def close_all(path, seconds):
    """As a library does that makes a daemon of its process."""
    append(path, os.getpid())
    os.closerange(3, 4096)
    time.sleep(seconds)
