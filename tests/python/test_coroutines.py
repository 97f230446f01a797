"""Tasks that are coroutine functions, in the processes of a worker."""

import importlib

import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from test_prefork import error, shelf, start, value  # noqa: F401: fixtures are found by their names

pytestmark = pytest.mark.only("redis", "results are handed to the worker for Redis alone")


@pytest.fixture(scope="module")
def later(shelf):
    return importlib.import_module("shelf.coroutines")


@pytest.fixture(scope="module")
def worker(shelf, start):
    return start("-c", "1")


def test_they_run_to_their_results_on_one_loop(later, worker):
    assert value(later.add_later.delay(1, 2)) == 3
    first, second = (value(later.about.delay(text)) for text in ("a", "b"))
    assert (first["pid"], first["loop"]) == (second["pid"], second["loop"])
    assert first["id"] != second["id"] and first["before"] is second["before"] is None
    assert value(later.flaky_later.delay()) == 1


@pytest.mark.parametrize("computes", [False, True])
def test_the_soft_limit_is_raised_in_them(later, worker, computes):
    assert value(later.patient.apply_async((60, computes), soft_time_limit=0.3)) == "limited"
    # It comes while something else has the processor, and is the coroutine's all the same.
    assert value(later.delegating.apply_async((2,), soft_time_limit=0.5)) == "limited"
    error(later.overlong.apply_async((60,), soft_time_limit=0.3), SoftTimeLimitExceeded)
    assert value(later.add_later.delay(1, 2)) == 3
