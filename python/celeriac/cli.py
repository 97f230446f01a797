"""The command line: finds the app as ``celery -A`` does, and hands the rest to Rust."""

import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING, Optional

from celeriac import _celeriac
from celeriac.options import Options, UsageError, split

if TYPE_CHECKING:
    from celeriac import beat
    from celeriac.worker import Preparation

NO_APP = """\
Unable to load celery application.
{reason}"""


def main(argv: Optional[list[str]] = None) -> int:
    """Runs a command line, and returns its exit code."""
    argv = sys.argv if argv is None else argv
    # What is not installed but stands in the directory can be imported, as with `celery`.
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        options = split(argv[1:], os.environ)
    except UsageError as error:
        return fail(str(error))
    if options.command == "quickstart":
        from celeriac import quickstart

        return quickstart.run(argv[argv.index("quickstart") + 1 :])
    # What help calls it.
    return run(options, "python -m celeriac" if os.path.basename(argv[0]) == "__main__.py" else argv[0])


def run(options: Options, program: str, app=None) -> int:
    """Runs what the program of that name was told, for the app that is named there or else for the given one."""
    os.environ.update(options.environment)
    if options.workdir:
        os.chdir(options.workdir)
        sys.path.insert(0, os.getcwd())
    if options.app is not None or app is None:
        app = load(options.app)
    if app is None:
        return 2
    # Celery's own machinery is imported when it is known that there is something to do.
    from celeriac import beat, check, panel, user_options, worker

    if options.command in ("inspect", "control") and panel.is_own(options.arguments):
        return celerys([*(["-A", options.app] if options.app else []), *options.arguments])
    if options.command == "config":
        return check.run(app, options.arguments)
    try:
        if options.command == "worker":
            options.user, options.arguments = user_options.take(app, options.arguments)
        preparation = worker.Preparation(app, options)
    except UsageError as error:
        return fail(str(error))
    beats = beat.Preparation(app, options)
    code = serve(preparation, beats, program)
    if preparation.leaves_threads() or beats.leaves_threads():
        # A thread that runs a task or a command, or sends, cannot be ended, but with the process.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def serve(preparation: "Preparation", beats: "beat.Preparation", program: str, line: Optional[int] = None) -> int:
    """Runs the command that was prepared for; ``line``: the descriptor of a socket, for a worker that is not alone in its
    process and ends when the socket's other end is closed."""
    from celeriac import settings, worker

    app = preparation.app
    arguments = [program, *preparation.options.arguments]
    name = f"{app.main or '__main__'}:{hex(id(app))}"

    def run_in(library) -> int:
        # Each has, and closes, one of its own.
        ours = None if line is None else os.dup(line)
        return library.run(
            arguments,
            name,
            preparation.pool,
            worker.default_concurrency(),
            settings.of(app),
            lambda with_defaults: settings.told(app, with_defaults),
            preparation.prepare,
            beats.begin,
            ours,
        )

    if line is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # What Rust hears would otherwise interrupt Python, too, when it is back there.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        code = run_in(_celeriac)
        if preparation.refusal:
            code = fail(preparation.refusal, 1)
        elif preparation.module:
            code = run_in(preparation.module.worker)
        if code == 0 and preparation.worker is not None:
            code = preparation.worker.exitcode or 0
    except ValueError as error:
        code = fail(str(error), 1)
    finally:
        preparation.end()
        if line is not None:
            os.close(line)
    return code


def celerys(arguments: list[str]) -> int:
    """Celery's own command line, which knows the project's commands."""
    from celery.bin.celery import celery

    return celery.main(arguments, "celery", standalone_mode=False, auto_envvar_prefix="CELERY") or 0


def load(name: Optional[str]):
    """The app of that name by the rules of ``celery -A``; nothing, and the reason on standard error, if there is none."""
    from celery.app.utils import find_app
    from celery.utils.imports import symbol_by_name

    try:
        if name is None:
            from celery._state import get_current_app

            return get_current_app()
        return find_app(name, symbol_by_name=symbol_by_name)
    except ModuleNotFoundError as error:
        if error.name == name:
            fail(NO_APP.format(reason=f"The module {error.name} was not found."))
        else:
            fail(NO_APP.format(reason=traceback.format_exc()))
    except AttributeError as error:
        fail(NO_APP.format(reason=str(error)))
    except Exception:
        fail(NO_APP.format(reason=traceback.format_exc()))
    return None


def fail(reason: str, code: int = 2) -> int:
    """Says what is wrong."""
    print(f"Error: {reason}", file=sys.stderr)
    return code
