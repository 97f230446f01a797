"""Stock Celery's command line in one process that starts once: reads arguments, writes what came of them, line by line.

Without colours: with them, and where Pygments happens to be installed, JSON is followed by an empty line.
"""

import json
import sys

from celery.bin.celery import celery
from click.testing import CliRunner

for line in sys.stdin:
    given = json.loads(line)
    ended = CliRunner().invoke(celery, ["-A", "stock", "-C", *given["arguments"]], input=given["input"])
    errors = ended.stderr or (repr(ended.exception) if ended.exception else "")
    print(json.dumps({"code": ended.exit_code, "out": ended.stdout, "err": errors}), flush=True)
