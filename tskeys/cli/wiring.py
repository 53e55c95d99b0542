"""From the config's dataclasses to what a rotation works with."""

from collections.abc import Sequence

from tskeys import delivery
from tskeys.config import ConsumerConfig, KeyConfig
from tskeys.consumers import FileConsumer, Target, UnitConsumer
from tskeys.deliver import Consumer
from tskeys.name import KeyName
from tskeys.plan import Plan


def plan_of(name: KeyName, key: KeyConfig | None) -> Plan:
    """Return the plan for a key; one without a config is only delivered and watched."""
    if key is None:
        return Plan(name)
    return Plan(name, key.issuer, key.settings, key.grace, key.revoke_adopted)


def consumers_of(name: KeyName, key: KeyConfig | None, run: str) -> Sequence[Consumer]:
    """Return the consumers of a key, in the order of the config."""
    if key is None:
        return ()
    several = len(key.consumers) > 1
    return [_consumer(name, consumer, run, several=several) for consumer in key.consumers]


def _consumer(name: KeyName, consumer: ConsumerConfig, run: str, *, several: bool) -> Consumer:
    default = delivery.default_path(
        name, unit=consumer.unit if several else None, form=consumer.format, root=run
    )
    target = Target(
        to=consumer.to or default,
        form=consumer.format,
        owner=consumer.owner,
        group=consumer.group,
        mode=consumer.mode,
        root=run,
        # A path that somebody wrote into the config is meant, be it on a disk.
        allow_disk=consumer.to is not None,
    )
    if consumer.unit is None:
        return FileConsumer(target)
    return UnitConsumer(
        consumer.unit,
        target,
        on_rotate=consumer.on_rotate,
        stable=consumer.stable.total_seconds(),
        deadline=consumer.deadline.total_seconds(),
    )
