"""Celery's suite of one version, and a virtual environment with that version; both are made once, under `.build`."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from harness import BUILD, Failed, progress

REQUIREMENTS = Path(__file__).resolve().parent / "requirements.txt"
EXTRAS = "auth,msgpack,pydantic,redis,yaml"


@dataclass(frozen=True)
class Suite:
    """Where the tests are, and who runs them."""

    version: str
    folder: Path
    python: Path

    def files(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "t" / "integration").glob("test_*.py"))


def prepare(version: str) -> Suite:
    home = BUILD / "conformance" / version
    return Suite(version, sources(version, home), environment(version, home))


def sources(version: str, home: Path) -> Path:
    """The suite without Celery itself, so that what is imported is what is installed."""
    folder = home / "suite"
    if folder.exists():
        return folder
    progress(f"downloading the sources of Celery {version}")
    pip(sys.executable, "download", "--no-deps", "--no-binary", ":all:", "--dest", str(home), f"celery=={version}")
    unpacked = home / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    with tarfile.open(home / f"celery-{version}.tar.gz") as archive:
        archive.extractall(unpacked, filter="data")
    new = home / "suite.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    top = unpacked / f"celery-{version}"
    shutil.move(top / "t", new / "t")
    shutil.move(top / "pyproject.toml", new / "pyproject.toml")
    shutil.rmtree(unpacked)
    return new.rename(folder)


def environment(version: str, home: Path) -> Path:
    venv, python = home / "venv", home / "venv" / "bin" / "python"
    wanted = hashlib.sha256(f"celery[{EXTRAS}]=={version}\n{REQUIREMENTS.read_text()}".encode()).hexdigest()
    stamp = venv / ".stamp"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    progress(f"installing Celery {version} and what its suite wants")
    shutil.rmtree(venv, ignore_errors=True)
    run([sys.executable, "-m", "venv", str(venv)])
    pip(str(python), "install", f"celery[{EXTRAS}]=={version}", "-r", str(REQUIREMENTS))
    stamp.write_text(wanted)
    return python


def pip(python: str, *arguments: str) -> None:
    run([python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments])


def run(command: list[str]) -> None:
    ended = subprocess.run(command, stdin=subprocess.DEVNULL)
    if ended.returncode:
        raise Failed(f"exit code {ended.returncode}: {' '.join(command)}")
