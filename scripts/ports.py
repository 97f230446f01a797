"""Ports that stay one's own."""

import socket


class Port:
    """A free TCP port of 127.0.0.1 that nobody else is given for as long as this is kept, listened on or not.

    A socket stays bound to it, and never listens. The kernel gives such a port neither to who asks for any nor to an
    outgoing connection, and yet lets a server listen there that asks for the port itself (with SO_REUSEADDR, as Redis,
    RabbitMQ, PostgreSQL, memcached and all others here do): also when it comes a second time.
    """

    def __init__(self):
        self._kept = socket.socket()
        self._kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._kept.bind(("127.0.0.1", 0))
        self.number = self._kept.getsockname()[1]

    def __del__(self):
        self._kept.close()


def free_port() -> int:
    """One that nobody else is given before this program ends."""
    _kept.append(Port())
    return _kept[-1].number


_kept: list[Port] = []
