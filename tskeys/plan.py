"""What the user wants of a key, and how a run on it ended."""

from dataclasses import dataclass, field
from datetime import timedelta

from tskeys.errors import Conflict, ConsumerLags, RolledBack
from tskeys.keyinfo import KeySettings
from tskeys.name import KeyName

ROTATED = "rotated"
ROLLED_BACK = "rolled back"
ABANDONED = "abandoned"
SUPERSEDED = "superseded by another key"
UNANSWERED = "unanswered"
GIVEN_UP = "given up"


@dataclass(frozen=True, slots=True)
class Plan:
    """What the user wants of a key; `issuer` is None for one that is only delivered."""

    name: KeyName
    issuer: str | None = None
    settings: KeySettings = field(default_factory=KeySettings)
    grace: timedelta = timedelta(0)
    revoke_adopted: bool = False


@dataclass(slots=True)
class Outcome:
    """How a run ended: what became of the rotation, and what is left to be done.

    `lagging` has a reason for each consumer, `overdue` a sentence for each thing that was not possible.
    """

    state: str = ""
    key_id: str | None = None
    reasons: list[str] = field(default_factory=list)
    lagging: dict[str, str] = field(default_factory=dict)
    overdue: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """Return the exit code of the run."""
        if self.state == ROLLED_BACK:
            return RolledBack.exit_code
        if self.state == SUPERSEDED:
            return Conflict.exit_code
        return ConsumerLags.exit_code if self.lagging or self.overdue else 0
