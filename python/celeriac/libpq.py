"""Where Python's drivers for PostgreSQL look beside a URL: libpq's variables, and the files in the home folder."""

import os

#: Servers of this machine, to which nothing has to be encrypted.
NEAR = ("localhost", "127.0.0.1", "::1")


def says_all(host: str) -> bool:
    """Whether a URL says all about how that server is spoken to, so that the worker does it as the drivers would.

    Source: libpq's documentation, "Environment Variables" and "SSL Support" (``~/.postgresql``).
    """
    if host in NEAR:
        return True
    return not any(name.startswith("PG") for name in os.environ) and not os.path.isdir(os.path.expanduser("~/.postgresql"))
