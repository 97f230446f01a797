"""Canvases without chords, with results at `rpc://`: their clients get what a stock worker sends them.

As in `test_canvas.py`, each case is asked of a stock worker first; then the worker must pass it as well, and publish the
same, tasks and results alike, with the ids masked.
"""

import pytest

from canvas import Canvas
from rabbit import RabbitBroker
from support import SECONDS
from test_canvas import Side, start_ours, start_stock


# What a callback or an errback returns goes to the worker that sent it, and to nobody; nothing is found by an id alone,
# and what was asked for once not by asking again. So these are the cases that ask for no more than their client is sent.
NAMES = [
    "a_long_chain", "chains_in_chains", "options_along_a_chain", "a_group_of_chains", "groups_in_groups",
    "a_group_that_is_spread_over_time", "an_empty_group", "a_map", "a_starmap", "chunks", "a_map_whose_item_fails",
    "a_new_errback_is_called_with_the_error",
]


class RpcBroker(RabbitBroker):
    """Results come over it, too; the Redis beside it stays empty."""

    def __init__(self, folder):
        super().__init__(folder)
        self.result_url = "rpc://"


class RpcCanvas(Canvas):
    """Results are consumed: a stock client that has waited once gets none by asking."""

    def ended(self, result):
        result = self.result(result)
        result.get(timeout=SECONDS, propagate=False)
        return result


class RpcSide(Side):
    new_canvas = RpcCanvas

    def end(self):
        self.app.close()
        self.broker.close()


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """Starts a side where it is asked for; so that each can be looked at alone."""
    started = {}

    def side(name):
        if name not in started:
            start = {"stock": start_stock, "ours": start_ours}[name]
            started[name] = RpcSide(tmp_path_factory.mktemp(name), RpcBroker, start)
        return started[name]

    yield side
    for one in started.values():
        one.stop()


@pytest.mark.parametrize("name", NAMES)
def test_what_stock_celery_does(sides, name):
    sides("stock").record(name)


@pytest.mark.parametrize("name", NAMES)
def test_what_the_worker_does(sides, name):
    expected = sides("stock").record(name)
    difference = expected.difference(sides("ours").record(name))
    assert not difference, difference
