"""``celery -A proj celeriac …``: the command line of :mod:`celeriac.cli` among Celery's commands.

Celery imports this at each of its own commands, so nothing else is imported before it is called.
"""

import click

#: Whatever comes is for the other command line to read, and to answer.
UNREAD = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.command("celeriac", add_help_option=False, context_settings=UNREAD, options_metavar="")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="worker [OPTIONS]...")
@click.pass_context
def celeriac(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Run the tasks in Celeriac's worker; its options are the worker's."""
    from celeriac import cli
    from celeriac.options import UsageError, split

    given = ctx.obj
    # What stood before the command has had its effect already, but for these.
    before = [word for word, is_given in (("--no-color", given.no_color), ("--quiet", given.quiet)) if is_given]
    try:
        options = split([*before, *arguments], {})
    except UsageError as error:
        ctx.exit(cli.fail(str(error)))
    ctx.exit(cli.run(options, "celery celeriac", given.app))
