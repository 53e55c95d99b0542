"""`migrate`: keys move from one store to another."""

import time

import click

from tskeys import registry
from tskeys.cli.app import NAME, App
from tskeys.cli.each import each
from tskeys.cli.progress import Progress
from tskeys.errors import UsageError
from tskeys.migrate import migrate as move
from tskeys.name import KeyName


@click.command()
@click.argument("source")
@click.argument("target")
@click.argument("names", type=NAME, nargs=-1, metavar="[NAME]...")
@click.option("--all", "every", is_flag=True, help="Every key that the source lists.")
@click.option(
    "--delete-source", is_flag=True, help="Delete each key at its source once its copy is compared."
)
@click.pass_obj
def migrate(
    app: App, source: str, target: str, names: tuple[KeyName, ...], every: bool, delete_source: bool
) -> int:
    """Copy keys to another store, read them back, compare, and only then delete them at their source.

    What was interrupted can be run again. The lines to change in the config are printed.

    \b
    Example: tskeys migrate file:/etc/tailscale-keys pass:tailscale --all
    """
    if bool(names) == every:
        raise UsageError("name the keys, or give --all", hint="See tskeys migrate --help.")
    here, there = (registry.open_store(app.locate(word)) for word in (source, target))
    if here.location.place == there.location.place:
        raise UsageError(f"{source} and {target} are the same store")

    def one(place: str | None, name: KeyName, progress: Progress) -> int:
        # In one order everywhere, so that two of these cannot wait for each other.
        first, second = sorted((here, there), key=lambda store: store.location.place)
        with app.lock(first, name), app.lock(second, name):
            move(name, here, there, app.ledger, delete_source=delete_source, now=time.time, step=progress)
        left = "is no more in" if delete_source else "is still in"
        click.echo(f"{name}: is in {target}, and {left} {source}")
        key = app.config.keys.get(name)
        if key and key.location.place == here.location.place:
            click.echo(f'{name}: change {app.config.path}: [keys."{name}"] store = "{target}"')
            for consumer in key.consumers:
                click.echo(
                    f"{name}: change the --store of the hook of {consumer.unit or consumer.to}, if it has one"
                )
        return 0

    return each(names or app.names_in(here), one)
