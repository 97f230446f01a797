"""Records what stock Celery answers: `python record.py > routes.json` with Celery 5.7.0 installed.

Each case is the configuration as TOML (as Celeriac reads it), a task's name and its options; the answer is where Celery
publishes the message and which queue it declares before.
"""
import json
import re
import sys
import tomllib

from celery import Celery
from celery.exceptions import QueueNotFound

CASES = [
    # Nothing configured.
    ("", "t", {}),
    ("", "t", {"queue": "hi"}),
    ("", "t", {"queue": None, "priority": None}),
    ("", "t", {"exchange": "ex"}),
    ("", "t", {"exchange": "ex", "routing_key": "key"}),
    ("", "t", {"routing_key": "key"}),
    ("", "t", {"queue": "hi", "routing_key": "key"}),
    ("", "t", {"exchange": "ex", "routing_key": "key", "exchange_type": "topic"}),
    ("", "t", {"exchange": "ex", "exchange_type": "topic"}),
    ("", "t", {"queue": "hi", "exchange_type": "topic"}),
    ("", "t", {"priority": 3, "delivery_mode": 1}),
    ("", "t", {"delivery_mode": "transient"}),
    # Defaults of the settings.
    ("task_default_queue = 'q'", "t", {}),
    ("task_default_queue = 'q'\ntask_default_exchange = 'x'\ntask_default_routing_key = 'k'", "t", {}),
    ("task_default_exchange_type = 'topic'", "t", {}),
    ("task_default_exchange_type = 'topic'\ntask_default_exchange = 'x'\ntask_default_routing_key = 'k.#'", "t", {}),
    ("task_default_exchange_type = 'topic'", "t", {"queue": "hi"}),
    ("task_default_exchange_type = 'topic'", "t", {"routing_key": "a.b"}),
    ("task_default_delivery_mode = 1", "t", {}),
    ("task_default_delivery_mode = 'transient'", "t", {}),
    ("task_default_queue_type = 'quorum'", "t", {}),
    ("task_default_queue_type = 'quorum'", "t", {"queue": "hi"}),
    ("task_create_missing_queue_type = 'quorum'", "t", {"queue": "hi"}),
    ("task_create_missing_queue_exchange_type = 'topic'", "t", {"queue": "hi"}),
    ("task_create_missing_queue_exchange_type = 'topic'", "t", {}),
    ("task_queue_max_priority = 10", "t", {}),
    ("task_queue_max_priority = 10", "t", {"queue": "hi"}),
    # Queues of the project.
    ("[task_queues.a]\nexchange = 'e'\nexchange_type = 'topic'\nrouting_key = 'a.#'", "t", {}),
    ("[task_queues.a]\nexchange = 'e'\nexchange_type = 'topic'\nrouting_key = 'a.#'", "t", {"queue": "a"}),
    ("[task_queues.a]\nexchange = 'e'\nexchange_type = 'topic'\nrouting_key = 'a.#'", "t", {"queue": "a", "routing_key": "a.b"}),
    ("[task_queues.a]\nexchange = 'e'\nexchange_type = 'topic'\nrouting_key = 'a.#'", "t", {"queue": "a", "exchange": "z", "routing_key": "a.b"}),
    ("[task_queues.a]\nexchange = 'e'\nrouting_key = 'k'", "t", {"queue": "a"}),
    ("[task_queues.a]\nexchange = 'e'\nexchange_type = 'fanout'", "t", {"queue": "a"}),
    ("[task_queues.a]\nexchange_type = 'topic'", "t", {"queue": "a"}),
    ("[task_queues.a]\nbinding_key = 'k'", "t", {"queue": "a"}),
    ("[task_queues.a]\nexchange = 'e'\ndelivery_mode = 1", "t", {"queue": "a"}),
    ("[task_queues.a]\ndelivery_mode = 1", "t", {"queue": "a"}),
    ("[task_queues.a.queue_arguments]\nx-max-priority = 5\n[task_queues.b]", "t", {"queue": "a"}),
    ("task_queue_max_priority = 9\n[task_queues.a.queue_arguments]\nx-max-priority = 5", "t", {"queue": "a"}),
    ("task_create_missing_queues = false", "t", {}),
    ("task_create_missing_queues = false", "t", {"queue": "hi"}),
    ("task_create_missing_queues = false\n[task_queues.a]", "t", {"queue": "a"}),
    ("task_create_missing_queues = false\n[task_queues.a]", "t", {}),
    ("task_create_missing_queues = false\n[task_routes]\nt = 'nowhere'", "t", {}),
    ("task_create_missing_queues = false\n[task_routes]\nt = 'nowhere'", "u", {}),
    ("task_create_missing_queues = false\n[task_routes]\nt = 'nowhere'", "t", {"queue": "celery"}),
    # Routes: exact, glob, expression, and their order.
    ("task_routes = { t = 'one' }", "t", {}),
    ("task_routes = { t = 'one' }", "tt", {}),
    ("task_routes = { t = 'one' }", "t", {"queue": "two"}),
    ("task_routes = { t = { queue = 'one', priority = 7, delivery_mode = 1 } }", "t", {}),
    ("task_routes = { t = { queue = 'one', priority = 7 } }", "t", {"priority": 2}),
    ("task_routes = { t = { queue = 'one', priority = 7 } }", "t", {"priority": None}),
    ("task_routes = { t = { routing_key = 'k' } }", "t", {}),
    ("task_routes = { t = { exchange = 'e', routing_key = 'k' } }", "t", {}),
    ("task_routes = { t = { exchange = 'e', routing_key = 'k' } }", "t", {"routing_key": "mine"}),
    ("task_routes = { t = { exchange = 'e', exchange_type = 'topic', routing_key = 'k' } }", "t", {}),
    ("task_routes = { t = { queue = 'one', routing_key = 'k' } }", "t", {}),
    ("task_routes = { t = {} }", "t", {}),
    ("task_routes = { t = { priority = 4 } }", "t", {}),
    ("task_routes = { 'feed.*' = 'feeds' }", "feed.tasks.fetch", {}),
    ("task_routes = { 'feed.*' = 'feeds' }", "feeds", {}),
    ("task_routes = { '*.feed' = 'feeds' }", "my.feed", {}),
    ("task_routes = { '*.feed' = 'feeds' }", "my.feeds", {}),
    ("task_routes = { 'a*' = 'glob', 'abc' = 'exact' }", "abc", {}),
    ("task_routes = { 'a*' = 'first', 'ab*' = 'second' }", "abc", {}),
    ("task_routes = { 'ab*' = 'second', 'a*' = 'first' }", "abc", {}),
    ("task_routes = { 'z*' = 'first', 'zb*' = 'second', 'a' = 'x' }", "zbc", {}),
    ("task_routes = { 'a?c' = 'no-glob-without-star' }", "abc", {}),
    ("task_routes = { 'a?c*' = 'glob' }", "abcd", {}),
    ("task_routes = { 'a[bx]c*' = 'glob' }", "axc", {}),
    ("task_routes = { 'a[!bx]c*' = 'glob' }", "axc", {}),
    ("task_routes = { 'a[!bx]c*' = 'glob' }", "ayc", {}),
    ("task_routes = { 'a[b-d]*' = 'glob' }", "ac", {}),
    ("task_routes = { 'a[d-b]*' = 'glob' }", "ac", {}),
    ("task_routes = { 'a[]x]*' = 'glob' }", "a]", {}),
    ("task_routes = { 'a[x*' = 'glob' }", "a[xy", {}),
    ("task_routes = { 'a[^x]*' = 'glob' }", "a^", {}),
    ("task_routes = { 'a.b*' = 'glob' }", "axb", {}),
    ("task_routes = { '/(video|image)\\.tasks\\..*/' = 'media' }", "image.tasks.resize", {}),
    ("task_routes = { '/(video|image)\\.tasks\\..*/' = 'media' }", "my.image.tasks.resize", {}),
    ("task_routes = { '/vid/' = 'prefix' }", "video", {}),
    ("task_routes = { '/vid$/' = 'whole' }", "video", {}),
    ("[[task_routes]]\nt = 'one'\n[[task_routes]]\nt = 'two'\nu = 'three'", "t", {}),
    ("[[task_routes]]\nt = 'one'\n[[task_routes]]\nt = 'two'\nu = 'three'", "u", {}),
    ("[[task_routes]]\n't*' = 'glob'\n[[task_routes]]\ntt = 'exact'", "tt", {}),
    ("[[task_routes]]\nt = {}\n[[task_routes]]\nt = 'two'", "t", {}),
    ("task_routes = [[['ab*', 'first'], ['a*', { queue = 'second' }]]]", "abc", {}),
    ("task_routes = [[['ab*', 'first'], ['a*', { queue = 'second' }]]]", "ac", {}),
    ("task_routes = { t = 'a' }\n[task_queues.a]\nexchange = 'e'\nexchange_type = 'topic'\nrouting_key = 'a.#'", "t", {}),
    ("task_routes = { t = { queue = 'a', routing_key = 'a.c' } }\n[task_queues.a]\nexchange = 'e'\nexchange_type = 'topic'\nrouting_key = 'a.#'", "t", {}),
    ("task_routes = { t = { queue = 'a', routing_key = 'a.c' } }\n[task_queues.a]\nexchange = 'e'\nexchange_type = 'topic'\nrouting_key = 'a.#'", "t", {"queue": "other"}),
]


def expand(key):
    return re.compile(key[1:-1]) if len(key) > 1 and key[0] == key[-1] == "/" else key


def routes(value):
    if isinstance(value, dict):
        return {expand(key): route for key, route in value.items()}
    one = lambda item: routes(item) if isinstance(item, dict) else [(expand(key), route) for key, route in item]
    return [one(item) for item in value]


class Producer:
    """Keeps what is published instead of sending it."""

    def publish(self, body, **kwargs):
        self.kwargs = kwargs


def answer(toml, name, options):
    app, producer = Celery("t", set_as_current=False), Producer()
    settings = tomllib.loads(toml)
    if "task_routes" in settings:
        settings["task_routes"] = routes(settings["task_routes"])
    app.conf.update(settings)
    message = app.amqp.create_task_message("id", name)
    try:
        app.amqp.send_task_message(producer, name, message, **app.amqp.router.route(dict(options), name))
    except QueueNotFound as error:
        return {"error": error.args[0]}
    sent, modes = producer.kwargs, {"transient": 1, "persistent": 2}
    queue = sent["declare"][0] if sent["declare"] else None
    return {
        "exchange": sent["exchange"],
        "routing_key": sent["routing_key"] or "",
        "delivery_mode": modes.get(sent["delivery_mode"], sent["delivery_mode"]),
        "priority": sent.get("priority"),
        "declare": queue and [
            queue.name, queue.exchange.name, queue.exchange.type, queue.routing_key, queue.queue_arguments or {},
        ],
    }


rows = [json.dumps([toml, name, options, answer(toml, name, options)]) for toml, name, options in CASES]
sys.stdout.write("[\n" + ",\n".join(rows) + "\n]\n")
