"""Where Python's drivers for PostgreSQL look beside a URL: libpq's variables, and the files in the home folder."""

import os
from collections.abc import Container
from typing import Optional

#: Servers of this machine, to which nothing has to be encrypted.
NEAR = ("localhost", "127.0.0.1", "::1")


def says_all(host: str, options: Container[str], mode: Optional[str]) -> bool:
    """Whether a URL says all about how that server is spoken to, so that the worker does it as the drivers would.

    ``options`` are those that it has, ``mode`` is its ``sslmode``. Source: libpq's documentation, "Environment Variables",
    "Specifying Multiple Hosts" and "SSL Support" (``~/.postgresql``).
    """
    # A path is a socket's folder, and there may be several servers.
    if set(host) & set("/,"):
        return False
    # What is not said beside these is a file in the home folder.
    if (mode or "").startswith("verify-") and "sslrootcert" not in options or ("sslcert" in options) != ("sslkey" in options):
        return False
    if host in NEAR:
        return True
    return not any(name.startswith("PG") for name in os.environ) and not os.path.isdir(os.path.expanduser("~/.postgresql"))
