"""A private RabbitMQ node: it registers nowhere, answers at once, and ends with whoever started it.

Only the standard library is needed: the tests, the recorder of fixtures and the benchmarks all start their nodes here.
The node itself is tests/support/rabbitmq_node.erl, which the tests in Rust start as well.
"""

import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import threading
import urllib.parse

from ports import Port

SOURCE = pathlib.Path(__file__).resolve().parent.parent / "tests" / "support" / "rabbitmq_node.erl"

# As in tests/support/rabbitmq_node.rs: few threads that do not spin, and a node that needs no register of nodes.
ERLANG = """
    +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none +W w -noshell -boot start_sasl -epmd_module rabbitmq_node
    -erl_epmd_port 1 -kernel inet_dist_use_interface {127,0,0,1} -kernel prevent_overlapping_partitions false
    -syslog logger [] -syslog syslog_error_logger false -rabbit loopback_users []
""".split()

# Where it keeps what; some are not there, so that nobody else's are read.
FILES = {
    "MNESIA_BASE": "", "MNESIA_DIR": "data", "FEATURE_FLAGS_FILE": "feature-flags", "ENABLED_PLUGINS_FILE": "plugins",
    "GENERATED_CONFIG_DIR": "configuration", "PID_FILE": "pid", "LOG_BASE": "", "LOGS": "log", "CONFIG_FILE": "none",
    "CONFIG_FILES": "none", "ADVANCED_CONFIG_FILE": "none", "CONF_ENV_FILE": "none",
}


def home():
    """Where RabbitMQ is installed: Debian's place, or `RABBITMQ_HOME`."""
    if place := os.environ.get("RABBITMQ_HOME"):
        return pathlib.Path(place)
    return max(pathlib.Path("/usr/lib/rabbitmq/lib").iterdir())


class Node:
    """A node that keeps what it holds on one port for its whole life. It ends, and its files go, when the tests end."""

    def __init__(self, *options):
        self.folder, self._own_port = pathlib.Path(tempfile.mkdtemp(prefix="celeriac-")), Port()
        self.port = self._own_port.number
        self._options, self._vhosts, self._lock = options, itertools.count(), threading.Lock()
        (self.folder / "plugins").write_text("[].\n")
        self.start()

    def start(self):
        """Starts it, and returns when it accepts connections."""
        source, place = json.dumps(str(SOURCE)), home()
        run = f"{{ok,M,B}}=compile:file({source},[binary]),{{module,_}}=code:load_binary(M,{source},B),M:start()."
        listeners = f'[{{"127.0.0.1",{self.port}}}]'
        env = {
            **os.environ, "HOME": str(self.folder), "ERL_LIBS": f"{place}/plugins", "RABBITMQ_HOME": str(place),
            "RABBITMQ_PLUGINS_DIR": f"{place}/plugins", "RABBITMQ_NODENAME": "rabbit@localhost",
            **{f"RABBITMQ_{name}": str(self.folder / file) for name, file in FILES.items()},
        }
        own = ["-rabbit", "tcp_listeners", listeners, *self._options, "-own_folder", str(self.folder), "-eval", run]
        with self._lock:
            self._process = subprocess.Popen(
                ["erl", *ERLANG, *own], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            assert self._answer() == "ready", self.log()

    def ask(self, expression):
        """The value of an Erlang expression, as Erlang writes it; ConnectionError while the node is down."""
        with self._lock:
            self._process.stdin.write(expression.encode() + b"\n")
            self._process.stdin.flush()
            answer = self._answer()
        assert not answer.startswith("{'EXIT',"), f"{expression}: {answer}"
        return answer

    def _answer(self):
        for line in self._process.stdout:
            if line.startswith(b"> "):
                return line[2:].decode().rstrip("\n")
        raise ConnectionError(f"the node has ended:\n{self.log()[-4000:]}")

    def log(self):
        return (self.folder / "log").read_text(errors="replace")

    def shut_down(self):
        """Ends it as an operator does."""
        with self._lock:
            self._process.stdin.write(b"rabbit:stop_and_halt().\n")
            self._process.stdin.flush()
            self._process.wait(60)

    def kill(self):
        self.ask("rabbitmq_node:settle().")
        self._process.kill()
        self._process.wait()

    def send(self, number):
        """A signal."""
        self._process.send_signal(number)

    def alarm(self, raised):
        """As if memory were low: who publishes is blocked."""
        assert self.ask(f"rabbitmq_node:alarm({str(raised).lower()}).") == "ok"

    def close(self):
        """For good."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def vhost(self):
        """The name of a new vhost, with a character that a URL has to encode."""
        name = f"tests/{next(self._vhosts)}"
        assert self.ask(f'rabbitmq_node:add_vhost(<<"{name}">>, <<"guest">>).') == "ok"
        return name

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class VHost:
    """A part of a node that nobody else uses, and a look behind the scenes."""

    def __init__(self, node):
        self.node, self.name = node, node.vhost()

    @property
    def url(self):
        return f"amqp://guest:guest@127.0.0.1:{self.node.port}/{urllib.parse.quote(self.name, safe='')}"

    def _ask(self, function, *arguments):
        return self.node.ask(f'rabbitmq_node:{function}({", ".join([f"<<{json.dumps(self.name)}>>", *arguments])}).')

    def depths(self):
        """For each queue, how many messages are ready and how many unacknowledged."""
        found = re.findall(r'\{<<"(.*?)"(?:/utf8)?>>,(\d+),(\d+)\}', self._ask("depths"))
        return {name: (int(ready), int(unacknowledged)) for name, ready, unacknowledged in found}

    def ready(self, queue):
        return self.depths().get(queue, (0, 0))[0]

    def unacknowledged(self):
        return sum(unacknowledged for _, unacknowledged in self.depths().values())

    def remove(self):
        self._ask("remove_vhost")
