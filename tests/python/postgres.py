"""A private PostgreSQL, from Debian's package."""

import ctypes
import os
import pathlib
import shutil
import signal
import subprocess
import time

from support import SECONDS, Port

PROGRAMS = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))
# The server refuses to be root.
AS_NOBODY = ["setpriv", "--reuid", "nobody", "--clear-groups", "--"] if os.getuid() == 0 else []


class Postgres:
    """A server on a free port, with the database `postgres`."""

    def __init__(self):
        assert PROGRAMS, "PostgreSQL is not installed"
        self._own_port = Port()
        self.port = self._own_port.number
        self.url = f"postgresql+psycopg://celeriac:secret@127.0.0.1:{self.port}/postgres"
        # Not below a folder that is another user's.
        self.folder = pathlib.Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
        if AS_NOBODY:
            shutil.chown(self.folder, "nobody")
        self._run("initdb", "-D", self.folder / "data", "-U", "celeriac", "-A", "trust", "-E", "UTF8", "--no-sync")
        command = [*AS_NOBODY, PROGRAMS[-1] / "postgres", "-D", self.folder / "data", "-k", self.folder]
        self._process = subprocess.Popen(
            [*command, "-h", "127.0.0.1", "-p", str(self.port), "-c", "fsync=off", "-c", "timezone=UTC"], cwd=self.folder,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=lambda: ctypes.CDLL(None).prctl(1, signal.SIGQUIT),
        )  # fmt: skip
        end = time.monotonic() + SECONDS
        while self._run("pg_isready", "-h", "127.0.0.1", "-p", str(self.port), check=False).returncode:
            assert time.monotonic() < end, "PostgreSQL does not answer"
            time.sleep(0.05)

    def _run(self, program, *arguments, check=True):
        command = [*AS_NOBODY, PROGRAMS[-1] / program, *arguments]
        return subprocess.run(command, cwd=self.folder, check=check, capture_output=True)

    def stop(self):
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()
        shutil.rmtree(self.folder)
