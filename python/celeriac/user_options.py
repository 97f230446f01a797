"""Options of the command ``worker`` that the project has added: ``app.user_options["worker"]``."""

from typing import Any

from celeriac.options import UsageError


def take(app, arguments: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Reads the project's options; returns them by their names, and the arguments without them."""
    added = app.user_options.get("worker")
    if not added or "worker" not in arguments:
        return {}, arguments
    # Celery's command line is made of it, too.
    import click

    at = arguments.index("worker") + 1
    command = click.Command(
        "worker", params=list(added), add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )  # fmt: skip
    try:
        context = command.make_context("worker", arguments[at:])
    except click.UsageError as error:
        raise UsageError(error.format_message()) from None
    return context.params, [*arguments[:at], *context.args]
