"""`status`: what is known of each key."""

import json
import time
from datetime import timedelta

import click

from tskeys.cli.app import App, store_option
from tskeys.cli.report import key_rows
from tskeys.duration import show
from tskeys.errors import StoreError
from tskeys.name import KeyName

_HEADER = ("KEY", "STORE", "KEY ID", "STATE", "AGE", "EXPIRES IN", "CONSUMERS", "LAST ROTATION")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@store_option
@click.pass_obj
def status(app: App, as_json: bool) -> None:
    """Show each key: its ID, age and expiry, its consumers and its last rotation.

    \b
    Example: tskeys status --json
    """
    rows = key_rows(app, _keys(app))
    if as_json:
        click.echo(json.dumps({"schema": 1, "keys": rows}, indent=2))
        return
    table = [_HEADER]
    for row in rows:
        known = app.ledger.known(row["store"], KeyName(row["name"]))
        table.append(
            (
                row["name"],
                row["store"],
                row["key_id"] or "-",
                row["state"],
                _span(time.time() - known.since) if known else "-",
                _span(known.expires - time.time()) if known and known.expires else "-",
                ", ".join(f"{each['name']} {each['state']}" for each in row["consumers"]) or "-",
                row["last_rotation"] or "-",
            )
        )
    widths = [max(len(line[column]) for line in table) for column in range(len(_HEADER))]
    for line in table:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def _keys(app: App) -> list[tuple[str, KeyName]]:
    found = [(key.location.place, name) for name, key in app.config.keys.items()]
    wanted = [location.place for location in app.locations()]
    found += [(key.store, KeyName(key.name)) for key in app.ledger.known_keys()]
    for where in wanted:
        try:
            found += [(where, name) for name in app.names_in(app.open_place(where))]
        except StoreError:
            continue  # its keys in config and ledger are shown as unavailable
    only = set(wanted) if app.store_option else None
    return [each for each in dict.fromkeys(found) if only is None or each[0] in only]


def _span(seconds: float) -> str:
    return show(timedelta(seconds=seconds)) if seconds >= 0 else f"{show(timedelta(seconds=-seconds))} ago"
