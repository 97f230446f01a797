"""The application of `stock`, for Flower: `celery -A flowered flower`.

Flower waits a second for a worker to answer what it is told to do, and that cannot be set. A busy machine needs longer; who
is asked for an answer here is one worker always, so that nobody waits longer than for that answer.
"""

import functools

from stock import app

app.control.broadcast = functools.partial(app.control.broadcast, timeout=60)
