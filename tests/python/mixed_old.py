"""The same project with a module of Rust tasks that was built with another release."""

from dataclasses import replace

from celeriac import rust_tasks

from mixed import app

__all__ = ["app"]

rust_tasks.modules[0] = replace(rust_tasks.modules[0], version="0.0.1")
