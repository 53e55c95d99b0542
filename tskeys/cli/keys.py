"""`set`, `get`, `list`, `delete`: keys in their stores."""

import json
import sys

import click

from tskeys import authkey, registry
from tskeys.cli.app import NAME, App, store_option
from tskeys.cli.prompt import read_key
from tskeys.cli.report import key_rows
from tskeys.errors import KeyNotFound, UsageError
from tskeys.name import KeyName
from tskeys.secret import Secret


@click.command("set")
@click.argument("name", type=NAME)
@store_option
@click.pass_obj
def set_key(app: App, name: KeyName) -> None:
    """Store a key that is piped in, or asked for without an echo.

    \b
    Example: tskeys set container-key < key.txt
    """
    from tskeys import held
    from tskeys.bookkeeping import Book

    store = app.open(name)
    secret = _checked(read_key(str(name)))
    with app.lock(store, name):
        store.put(name, secret)
        where = store.location.text
        book = Book(app.ledger, where, name, _now)
        key = app.config.keys.get(name)
        book.notice(held.look(store, name, app.ledger), key.issuer if key else None)
        app.ledger.record("set", where, name, authkey.shown(secret.reveal()), "stored")
    click.echo(f"{name}: {authkey.shown(secret.reveal())} is stored in {where}")
    if key and key.consumers:
        click.echo(f"Bring its consumers onto it with: tskeys deliver {name}", err=True)


def _now() -> float:
    import time

    return time.time()


def _checked(secret: Secret) -> Secret:
    stripped = Secret(secret.reveal().strip())
    if stripped != secret:
        click.echo("tskeys: warning: the blanks around the key are not stored", err=True)
    if not authkey.plausible(stripped.reveal()):
        raise UsageError(
            "that is no key, which is 8 to 4096 printable characters without blanks; nothing was changed"
        )
    for problem in authkey.problems(stripped.reveal()):
        click.echo(f"tskeys: warning: {problem}", err=True)
    return stripped


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
        found += [(location.text, name) for name in app.names_in(registry.open_store(location))]
    if as_json:
        click.echo(json.dumps({"schema": 1, "keys": key_rows(app, found)}, indent=2))
    else:
        for _, name in found:
            click.echo(name)


@click.command()
@click.argument("name", type=NAME)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--forget", is_flag=True, help="Forget one that is gone already, and end its open rotation.")
@store_option
@click.pass_obj
def delete(app: App, name: KeyName, yes: bool, forget: bool) -> None:
    """Delete a key from its store; the key itself stays valid until it is revoked.

    \b
    Example: tskeys delete container-key --yes
    """
    store = app.open(name)
    where = store.location.text
    known = app.ledger.known(where, name)
    if not (yes or forget):
        click.confirm(f"Delete {name} from {where}?", abort=True)
    with app.lock(store, name, forget=True):
        try:
            store.delete(name)
        except KeyNotFound:
            if not forget:
                raise
        app.ledger.record("delete", where, name, known.key_id if known else None, "deleted")
    app.rotation(name, forget=True).give_up()
    if known:
        click.echo(f"{name}: deleted; {known.key_id} is valid until: tskeys revoke {known.key_id}", err=True)
