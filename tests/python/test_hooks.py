"""What a project is called for when a task has ended, in the processes of a worker: the result is there by then."""

import importlib

import pytest

from faults import Lines
from test_prefork import error, shelf, start, value  # noqa: F401: fixtures are found by their names

pytestmark = pytest.mark.only("redis", "what happens between processes does not depend on the broker")


@pytest.fixture(scope="module")
def hooks(shelf):
    return importlib.import_module("shelf.hooks")


@pytest.fixture(scope="module")
def worker(shelf, start):
    return start("-Q", "hooks", "-c", "1", CELERY_IMPORTS=["shelf.hooks"])


def test_a_hook_finds_the_result(hooks, worker, tmp_path):
    lines = Lines(tmp_path)
    value(hooks.looks.apply_async((str(lines.path), False), queue="hooks"))
    lines.wait_for(1)
    assert lines.all() == ["after_return SUCCESS"]


def test_a_hook_and_an_errback_find_the_failure(hooks, worker, tmp_path):
    lines = Lines(tmp_path)
    errback = hooks.seen.s(path=str(lines.path))
    error(hooks.looks.apply_async((str(lines.path), True), queue="hooks", link_error=errback), KeyError)
    lines.wait_for(3)
    assert lines.all() == ["errback FAILURE", "on_failure FAILURE", "after_return FAILURE"]


def test_a_success_outlives_a_process_that_its_hook_ends(shelf, server, hooks, worker, tmp_path):
    lines = Lines(tmp_path)
    assert value(hooks.dies.apply_async((str(lines.path),), queue="hooks")) == "done"
    worker.output.wait_for(r"exited with 'signal 9 \(SIGKILL\)'")
    server.holds_nothing()
    assert value(shelf.add.apply_async((1, 2), queue="hooks")) == 3
    assert lines.all() == ["run"], "it is not run again"
