"""From the `consumers` of a key in the config to their dataclasses."""

import re

from tskeys.config.reader import Table, dotted, quoted
from tskeys.config.types import DELIVER, RELOAD, RESTART, ConsumerConfig
from tskeys.delivery import ENV, KEY

_CONSUMER = ("unit", "on_rotate", "to", "format", "owner", "group", "mode", "stable", "deadline")
_UNIT = re.compile(r"(?!-)[A-Za-z0-9:_.\\@-]{1,255}")  # systemd.unit(5)
_SUFFIX = re.compile(r"\.(service|socket|device|mount|automount|swap|target|path|timer|slice|scope)\Z")


def consumers(key: Table, targets: dict[str, str]) -> tuple[ConsumerConfig, ...]:
    """Return the consumers of a key; `targets` says who delivers where, and gets theirs."""
    found = []
    units: set[str] = set()
    for table in key.tables("consumers", _CONSUMER):
        found.append(consumer := _consumer(table))
        if consumer.unit and consumer.unit in units:
            table.wrong("unit", f"{quoted(consumer.unit)} is a consumer of this key already")
        if consumer.to and consumer.to in targets:
            table.wrong("to", f"{quoted(consumer.to)} is where {targets[consumer.to]} delivers already")
        units.add(consumer.unit or "")
        targets.setdefault(consumer.to or "", dotted(table.path))
    return tuple(found)


def _consumer(table: Table) -> ConsumerConfig:
    default = ConsumerConfig()
    unit, to = _unit(table), table.file("to")
    on_rotate = table.choice("on_rotate", (RESTART, RELOAD, DELIVER), default.on_rotate)
    if on_rotate != DELIVER and not table.given("unit"):
        table.wrong("on_rotate", f"{quoted(on_rotate)} needs a unit")
    elif not table.given("to"):
        table.need("unit", '"NAME.service", or to = PATH')
    form = table.choice("format", (KEY, ENV), default.format)
    mode = table.text("mode", "0400", example='"0400"')
    if not re.fullmatch(r"0?[0-7]{3}", mode) or int(mode, 8) & ~0o770:
        table.wrong(
            "mode", f'{quoted(mode)} is no mode that keeps others out; write octal digits as "0400" or "0440"'
        )
        mode = "0400"
    stable, deadline = table.duration("stable", default.stable), table.duration("deadline", default.deadline)
    if stable >= deadline:
        table.wrong(
            "stable" if "stable" in table.values else "deadline", "the deadline must be longer than stable"
        )
    owner, group = table.text("owner") or None, table.text("group") or None
    if owner and form == ENV:
        # The service's user could put any variable into an environment file that is its own.
        table.wrong(
            "owner", "an env file stays root's: systemd reads it before it starts the service as its user"
        )
    return ConsumerConfig(unit, on_rotate, to or None, form, owner, group, int(mode, 8), stable, deadline)


def _unit(table: Table) -> str | None:
    given = table.text("unit")
    if not given:
        return None
    unit = given if _SUFFIX.search(given) else f"{given}.service"
    if not _UNIT.fullmatch(unit):
        table.wrong("unit", f"{quoted(given)} is no name of a systemd unit")
    elif "@." in unit:
        table.wrong(
            "unit", f"{quoted(unit)} is a template; write an instance, as {unit.replace('@.', '@NAME.')}"
        )
    return unit
