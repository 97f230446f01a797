"""The same project with two modules of Rust tasks: a second one would be a second build of everything."""

from dataclasses import replace

from celeriac import rust_tasks

from mixed import app

__all__ = ["app"]

rust_tasks.modules.append(replace(rust_tasks.modules[0], name="other"))
