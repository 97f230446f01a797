"""Stock Celery's command line and ours, for the same broker and the same workers."""

import json
import os
import re
import subprocess
import sys

from faults import HERE
from support import EXAMPLE_WORKER, SECONDS


class Ended:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err


class Both:
    """The two command lines."""

    def __init__(self, broker):
        env = {
            **os.environ, "STOCK_BROKER": broker.url, "STOCK_BACKEND": broker.result_url, "PYTHONPATH": str(HERE),
            "STOCK_TRANSPORT_OPTIONS": "{}",
        }
        self.urls = ["-b", broker.url, "--result-backend", broker.result_url]
        self._stock = subprocess.Popen(
            [sys.executable, HERE / "stock_commands.py"], env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def stock(self, *arguments, answer=""):
        self._stock.stdin.write(json.dumps({"arguments": arguments, "input": answer}) + "\n")
        self._stock.stdin.flush()
        return Ended(**json.loads(self._stock.stdout.readline()))

    def ours(self, *arguments, answer="", urls=None):
        ended = subprocess.run(
            [EXAMPLE_WORKER, *(urls or self.urls), *arguments], input=answer, capture_output=True, text=True, timeout=60)
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def same(self, *arguments, answer="", code=0, mask=None):
        """What both print for the arguments, which is the same; `mask`: a pattern of what may differ."""
        stock, ours = self.stock(*arguments, answer=answer), self.ours(*arguments, answer=answer)
        hide = (lambda text: re.sub(mask, "…", text)) if mask else str
        assert (ours.code, hide(ours.out)) == (stock.code, hide(stock.out)), (arguments, stock.err, ours.err)
        assert ours.code == code, (arguments, ours.out, ours.err)
        assert bool(ours.err) == bool(stock.err), (stock.err, ours.err)
        return ours

    def end(self):
        self._stock.stdin.close()
        self._stock.wait(SECONDS)
        self._stock.stdout.close()
