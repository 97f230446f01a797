"""The application of `stock`, for Flower: `celery -A flowered flower`.

Flower waits a second for a worker to answer what it is told to do, and that cannot be set. A busy machine needs longer. Each
order here goes to one worker, so that nobody waits longer than for its answer.
"""

import functools

from stock import app

app.control.broadcast = functools.partial(app.control.broadcast, timeout=60)
