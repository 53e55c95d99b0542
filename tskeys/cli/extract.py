"""`extract`: the same as tskeys-extract."""

import click

from tskeys.cli.app import App


@click.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def extract(app: App, arguments: tuple[str, ...]) -> int:
    """Hand a key to a service as it starts; the script tskeys-extract does the same, faster.

    \b
    Example: tskeys extract web --to /run/tskeys/web/authkey --owner web
    """
    from tskeys import extract as extractor

    given = list(arguments)
    if app.store_option and not any(argument.startswith("--store") for argument in given):
        given += ["--store", app.location().text]
    return extractor.main(given)
