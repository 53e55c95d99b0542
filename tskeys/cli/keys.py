"""`set` and `delete`: keys go into their stores and out of them."""

import time

import click

from tskeys import authkey, held
from tskeys.bookkeeping import Book
from tskeys.cli.app import NAME, App, store_option
from tskeys.cli.prompt import read_key
from tskeys.errors import KeyNotFound, StoreUnavailable, UsageError
from tskeys.name import KeyName
from tskeys.secret import Secret
from tskeys.store import Warns


@click.command("set")
@click.argument("name", type=NAME)
@store_option
@click.pass_obj
def set_key(app: App, name: KeyName) -> None:
    """Store a key that is piped in, or asked for without an echo.

    \b
    Example: tskeys set container-key < key.txt
    """
    store = app.open(name)
    secret = _checked(read_key(str(name)))
    with app.lock(store, name):
        store.put(name, secret)
        where = store.location.place
        book = Book(app.ledger, where, name, time.time)
        key = app.config.keys.get(name)
        book.notice(held.look(store, name, app.ledger), key.issuer if key else None)
        app.ledger.record("set", where, name, authkey.shown(secret.reveal()), "stored")
    click.echo(f"{name}: {authkey.shown(secret.reveal())} is stored in {where}")
    for warning in store.warnings(name) if isinstance(store, Warns) else ():
        click.echo(f"tskeys: warning: {warning}", err=True)
    if key and key.consumers:
        click.echo(f"Bring its consumers onto it with: tskeys deliver {name}", err=True)


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
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--forget", is_flag=True, help="Forget one that is gone already, and end its open rotation.")
@store_option
@click.pass_obj
def delete(app: App, name: KeyName, yes: bool, forget: bool) -> None:
    """Delete a key from its store; the key itself stays valid until it is revoked.

    \b
    Example: tskeys delete container-key --yes
    """
    where = app.location(name).place
    book = Book(app.ledger, where, name, time.time)
    known = book.known()
    if not (yes or forget):
        click.confirm(f"Delete {name} from {where}?", abort=True)
    try:
        store = app.open(name)
        with app.lock(store, name, forget=True):
            store.delete(name)
    except (KeyNotFound, StoreUnavailable):
        if not forget:
            raise
    book.give_up()
    app.ledger.record("delete", where, name, known.key_id if known else None, "deleted")
    if known:
        click.echo(f"{name}: deleted; {known.key_id} is valid until: tskeys revoke {known.key_id}", err=True)
