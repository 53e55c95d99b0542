"""A small world for tests of the rotation: a store, an issuer and consumers that outlive a killed run."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tskeys import authkey, deliver
from tskeys.errors import Conflict, IssuerUnreachable, KeyNotFound, MintUnanswered, StoreUnavailable
from tskeys.keyinfo import KeyInfo, Minted, MintRequest
from tskeys.ledger import Ledger
from tskeys.lock import Lock
from tskeys.name import KeyName
from tskeys.plan import Outcome, Plan
from tskeys.rotation import Rotation
from tskeys.secret import Secret
from tskeys.store import ABSENT, KeyStore, Location, Stash, Version

NAME = KeyName("web")


class Killed(BaseException):
    """The run was killed here."""


@dataclass
class State:
    """What outlives a process."""

    current: str | None = None
    previous: str | None = None
    live: frozenset[str] = frozenset()
    minted: tuple[tuple[str, str], ...] = ()  # (rotation id, key)
    delivered: str | None = None


def key(number: int) -> str:
    return f"tskey-auth-k{number}CNTRL-secret{number:010d}"


def ident(text: str) -> str:
    return authkey.key_id(text.encode()) or ""


class MemoryStore(KeyStore, Stash):
    scheme = "memory"

    def __init__(self, world: "World") -> None:
        self.world = world
        self.location = Location("memory:store")

    @classmethod
    def open(cls, location: Location) -> "MemoryStore":
        raise NotImplementedError

    def _answer(self) -> None:
        if self.world.unmounted:
            raise StoreUnavailable("memory:store: not mounted")

    def get(self, name: KeyName) -> Secret:
        self._answer()
        if self.world.state.current is None:
            raise KeyNotFound("no key")
        return Secret(self.world.state.current.encode())

    def put(
        self,
        name: KeyName,
        secret: Secret,
        *,
        expect: Version | None = None,
        expires: datetime | None = None,
    ) -> Version:
        self._answer()
        if expect is not None and (self.version(name) or ABSENT) != expect:
            raise Conflict("changed")
        if self.world.full:
            raise StoreUnavailable("no space left")
        self.world.state.current = secret.reveal().decode()
        return Version.of(secret.reveal())

    def delete(self, name: KeyName) -> None:
        self.world.state.current = None

    def version(self, name: KeyName) -> Version | None:
        self._answer()
        current = self.world.state.current
        return Version.of(current.encode()) if current else None

    def stash(self, name: KeyName) -> None:
        self.world.state.previous = self.get(name).reveal().decode()

    def restore(self, name: KeyName, *, expect: Version | None = None) -> Version:
        if self.world.state.previous is None:
            raise KeyNotFound("no stash")
        return self.put(name, Secret(self.world.state.previous.encode()), expect=expect)

    def forget(self, name: KeyName) -> None:
        self.world.state.previous = None


@dataclass
class MemoryIssuer:
    world: "World"

    def _answer(self) -> None:
        if self.world.cut_off:
            raise IssuerUnreachable("tailnet: no answer")

    def mint(self, request: MintRequest) -> Minted:
        self._answer()
        state = self.world.state
        new = key(len(state.minted) + 1)
        state.minted = (*state.minted, (request.rotation_id, new))
        state.live |= {new}
        if self.world.lose_answer:
            raise MintUnanswered("tailnet: the connection was cut")
        return Minted(Secret(new.encode()), ident(new), datetime.now(UTC) + timedelta(days=90))

    def lookup(self, key_id: str) -> KeyInfo | None:
        self._answer()
        return KeyInfo(key_id, valid=key_id in {ident(alive) for alive in self.world.state.live})

    def find(self, rotation_id: str) -> list[KeyInfo]:
        self._answer()
        state = self.world.state
        return [
            KeyInfo(ident(made), valid=made in state.live, description=f"tskeys {rid} host web")
            for rid, made in state.minted
            if rid == rotation_id
        ]

    def clock(self) -> datetime | None:
        return None

    def revoke(self, key_id: str) -> None:
        self._answer()
        self.world.state.live = frozenset(alive for alive in self.world.state.live if ident(alive) != key_id)


@dataclass(eq=False)
class MemoryConsumer:
    """Runs on what was last delivered; `bad` are the keys that it dies on."""

    world: "World"
    name: str = "web.service"
    bad: Callable[[str], bool] = lambda delivered: False

    def baseline(self) -> str:
        return deliver.RUNNING

    def apply(self, secret: Secret, *, start: bool) -> deliver.Applied:
        self.world.state.delivered = secret.reveal().decode()
        if self.bad(self.world.state.delivered):
            return deliver.Applied(deliver.FAILED, reason="it died")
        return deliver.Applied(deliver.RUNS, invocation="1")

    def observe(self) -> deliver.Observed:
        delivered = self.world.state.delivered
        if delivered is None:
            return deliver.Observed(running=False)
        return deliver.Observed(True, fingerprint=authkey.fingerprint(delivered.encode()), invocation="1")


@dataclass
class World:
    """One host: its ledger on disk, its store, its issuer, its consumers."""

    root: Path
    state: State = field(default_factory=State)
    cut_off: bool = False
    lose_answer: bool = False
    unmounted: bool = False
    full: bool = False
    time: float = 1_800_000_000.0
    plan: Plan = field(default_factory=lambda: Plan(NAME, "tailnet"))
    consumers: list[MemoryConsumer] = field(default_factory=list)

    def run(
        self,
        what: str = "rotate",
        *,
        kill_at: int = -1,
        steps: list[str] | None = None,
        after: Callable[[int], None] = lambda number: None,
    ) -> Outcome | None:
        """Run a rotation or a recovery; return None if it was killed after step `kill_at`, counted from 0.

        `after` is told the number of each step that was done.
        """
        count = 0

        def step(name: str) -> None:
            nonlocal count
            if steps is not None:
                steps.append(name)
            if count == kill_at:
                raise Killed
            after(count)
            count += 1

        ledger = Ledger(str(self.root / "state"))
        store = MemoryStore(self)
        try:
            rotation = Rotation(
                plan=self.plan,
                store=store,
                ledger=ledger,
                lock=Lock(store, NAME, fallback=str(self.root / "locks"), wait=0),
                issuers=lambda name: MemoryIssuer(self),
                consumers=self.consumers,
                step=step,
                now=lambda: self.time,
            )
            return rotation.rotate() if what == "rotate" else rotation.recover()
        except Killed:
            return None
        finally:
            ledger.close()

    def copy(self, root: Path) -> "World":
        """Return a copy that goes its own way from here."""
        shutil.copytree(self.root, root)
        other = replace(self, root=root, state=replace(self.state))
        other.consumers = [replace(consumer, world=other) for consumer in self.consumers]
        return other


def kill_points(world: World, what: str, scratch: Iterator[Path]) -> Iterator[tuple[str, World]]:
    """Yield a copy of the world for each step that a run takes, killed right after that step."""
    for number in range(200):
        killed = world.copy(next(scratch))
        steps: list[str] = []
        try:
            outcome = killed.run(what, kill_at=number, steps=steps)
        except Exception:  # an error ends the run as well as its last step does
            return
        if outcome is not None:
            return
        yield steps[-1], killed
    raise AssertionError("the run does not end")
