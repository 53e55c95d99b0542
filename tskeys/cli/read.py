"""`get` and `list`: what a store holds."""

import json
import sys

import click

from tskeys import registry
from tskeys.cli.app import NAME, App, store_option
from tskeys.name import KeyName


@click.command()
@click.argument("name", type=NAME)
@store_option
@click.pass_obj
def get(app: App, name: KeyName) -> None:
    """Print a key.

    \b
    Example: tskeys --store file:/etc/tailscale-keys get container-key
    """
    sys.stdout.buffer.write(app.open(name).get(name).reveal() + b"\n")


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@store_option
@click.pass_obj
def list_keys(app: App, as_json: bool) -> None:
    """Print the names of the keys.

    \b
    Example: tskeys list --store file:/etc/tailscale-keys
    """
    found: list[tuple[str, KeyName]] = []
    for location in app.locations():
        found += [(location.place, name) for name in app.names_in(registry.open_store(location))]
    if as_json:
        from tskeys.cli.report import key_rows  # the ledger is not needed for the names

        click.echo(json.dumps({"schema": 1, "keys": key_rows(app, found)}, indent=2))
    else:
        for _, name in found:
            click.echo(name)
