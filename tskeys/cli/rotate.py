"""`rotate`, `deliver`, `recover`, `revoke`: what changes keys and brings consumers onto them."""

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import click

from tskeys import due, held
from tskeys.cli.app import NAME, App, store_option
from tskeys.cli.each import Key, each
from tskeys.cli.progress import Progress
from tskeys.config import KeyConfig
from tskeys.duration import show
from tskeys.errors import IssuerError, IssuerRefused, IssuerUnreachable, UsageError
from tskeys.name import KeyName
from tskeys.plan import Outcome
from tskeys.rotation import Rotation


@click.command()
@click.argument("names", type=NAME, nargs=-1, metavar="[NAME]...")
@click.option("--all", "every", is_flag=True, help="Every key of the config that has an issuer.")
@click.option("--due", "only_due", is_flag=True, help="Those of them that expire soon or are not there.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
@store_option
@click.pass_obj
def rotate(app: App, names: tuple[KeyName, ...], every: bool, only_due: bool, dry_run: bool) -> int:
    """Replace keys by new ones, bring their consumers onto them, then revoke the old ones.

    \b
    Example: tskeys rotate --due --dry-run
    """
    if bool(names) == (every or only_due):
        raise UsageError("name the keys, or give --all or --due", hint="tskeys rotate --due is for timers.")
    keys = [app.config.key(name) for name in names] or [key for key in app.config.keys.values() if key.issuer]

    def one(key: KeyConfig, rotation: Rotation) -> Outcome:
        if not only_due:
            return rotation.rotate()
        outcome = rotation.recover()
        reason = _why_due(app, key, rotation)
        if not reason:
            # A clock that is far behind makes nothing ever due; without an answer there is none to compare.
            with contextlib.suppress(IssuerUnreachable):
                rotation.compare_clocks()
            return outcome
        click.echo(f"{key.name}: is due: {reason}")
        return rotation.rotate()

    if dry_run:
        for key in keys:
            _print_plan(app, key, only_due=only_due)
        return 0
    return _each(
        app, [key.name for key in keys], lambda rotation: one(app.config.keys[rotation.name], rotation)
    )


@click.command()
@click.argument("names", type=NAME, nargs=-1, metavar="[NAME]...")
@click.option("--all", "every", is_flag=True, help="Every key of the config.")
@store_option
@click.pass_obj
def deliver(app: App, names: tuple[KeyName, ...], every: bool) -> int:
    """Bring every consumer onto what the store holds, and mint nothing.

    After `set`, after a `git pull`, after a failed restart, on hosts that do not rotate.

    \b
    Example: tskeys deliver container-key
    """
    if bool(names) == every:
        raise UsageError("name the keys, or give --all", hint="See tskeys deliver --help.")
    chosen = [app.config.key(name).name for name in names] or list(app.config.keys)
    return _each(app, chosen, lambda rotation: rotation.deliver())


@click.command()
@click.argument("names", type=NAME, nargs=-1, metavar="[NAME]...")
@store_option
@click.pass_obj
def recover(app: App, names: tuple[KeyName, ...]) -> int:
    """Finish or undo what earlier runs left, and revoke what is due.

    Every run does this first; `recover` does nothing else.

    \b
    Example: tskeys recover
    """
    if names:
        return _each(app, names, lambda rotation: rotation.recover())
    places = [(app.location(name).place, name) for name in app.config.keys]
    places += [(where, KeyName(name)) for where, name in app.ledger.unfinished()]
    return _each(app, dict.fromkeys(places), lambda rotation: rotation.recover())


@click.command()
@click.argument("what", metavar="NAME|ID")
@click.option("--issuer", metavar="ISSUER", help="Who minted it, where several are in the config.")
@click.pass_obj
def revoke(app: App, what: str, issuer: str | None) -> int:
    """Replace a key and revoke the old one at once; or revoke a key that is nowhere current, by its ID.

    Nodes that joined with it stay in the tailnet: a key's end logs nobody out.

    \b
    Example: tskeys revoke container-key
    """
    if KeyName(what) in app.config.keys:

        def at_once(rotation: Rotation) -> Outcome:
            rotation.plan = replace(rotation.plan, grace=timedelta(0), revoke_adopted=True)
            return rotation.rotate()

        return _each(app, [KeyName(what)], at_once)
    _revoke_by_id(app, what, issuer)
    return 0


def _revoke_by_id(app: App, key_id: str, issuer: str | None) -> None:
    holders = {(key.location.place, name) for name, key in app.config.keys.items()}
    holders |= {(known.store, KeyName(known.name)) for known in app.ledger.known_keys()}
    for where, name in sorted(holders):
        if held.look(app.open_place(where), name, app.ledger).key_id == key_id:
            raise UsageError(
                f"{key_id} is what {where} holds as {name}: nothing could start with it any more",
                hint=f"To replace it and then revoke it: tskeys revoke {name}",
            )
    known_issuers = list(app.config.issuers)
    if issuer is None and len(known_issuers) != 1:
        raise UsageError(
            f"{key_id} is no key of the config, and whose it is cannot be told",
            hint=f"Add --issuer with one of: {', '.join(known_issuers) or 'none is in the config'}.",
        )
    by = app.issuer(issuer or known_issuers[0])
    info = by.lookup(key_id)
    if info is None:
        raise IssuerRefused(
            f"{by.name}: knows no key {key_id}", hint="Is the ID right? tskeys status shows them."
        )
    if info.key_type != "auth":
        raise UsageError(f"{key_id} is no auth key but a credential of the kind {info.key_type!r}")
    by.revoke(key_id)
    app.ledger.record("revoke", "", "", key_id, "by hand")
    click.echo(f"{key_id}: revoked; nodes that joined with it stay in the tailnet")


def _each(app: App, keys: Iterable[Key], run: Callable[[Rotation], Outcome]) -> int:
    def one(place: str | None, name: KeyName, progress: Progress) -> int:
        outcome = run(app.rotation(name, place=place, step=progress))
        progress.close()
        _print(name, outcome)
        return outcome.exit_code

    return each(keys, one)


def _print(name: KeyName, outcome: Outcome) -> None:
    if outcome.state:
        current = f"; {outcome.key_id} is current" if outcome.key_id else ""
        click.echo(f"{name}: {outcome.state}{current}")
    for reason in outcome.reasons:
        click.echo(f"{name}: {reason}", err=True)
    for consumer, reason in outcome.lagging.items():
        click.echo(f"{name}: {consumer} lags: {reason}", err=True)
    for sentence in outcome.overdue:
        click.echo(f"{name}: {sentence}", err=True)


def _due(app: App, key: KeyConfig, rotation: Rotation, current: held.Held) -> tuple[str, datetime | None]:
    lookup = app.issuer(key.issuer).lookup if key.issuer else None
    return due.why(current, rotation.book.known(), key.rotate_before, lookup, datetime.now(UTC))


def _why_due(app: App, key: KeyConfig, rotation: Rotation) -> str:
    current = held.look(rotation.store, key.name, app.ledger)
    reason, expires = _due(app, key, rotation, current)
    if not reason and expires:
        rotation.book.learn(current, key.issuer, int(expires.timestamp()))
    return reason


def _print_plan(app: App, key: KeyConfig, *, only_due: bool) -> None:
    rotation = app.rotation(key.name)
    current = held.look(rotation.store, key.name, app.ledger)
    try:
        reason, expires = _due(app, key, rotation, current)
    except IssuerError as error:
        reason, expires = "", None
        click.echo(f"{key.name}: when it expires cannot be told: {error}", err=True)
    if only_due and not reason:
        until = f" until {expires:%Y-%m-%d %H:%M} UTC" if expires else ""
        click.echo(f"{key.name}: is not due; {current.key_id} is good{until}")
        return
    click.echo(f"{key.name}: would be rotated: {reason or 'you asked for it'}")
    for consumer in key.consumers:
        click.echo(f"  {consumer.on_rotate} {consumer.unit or consumer.to}")
    if current.key_id:
        minted = current.fingerprint and app.ledger.was_minted(current.fingerprint)
        if minted or key.revoke_adopted:
            click.echo(f"  revoke {current.key_id} {f'after {show(key.grace)}' if key.grace else 'at once'}")
        else:
            click.echo(f"  keep {current.key_id}: tskeys did not mint it")
