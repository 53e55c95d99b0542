"""What is known of an auth key besides the secret: what is asked of an issuer and what it answers."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from tskeys.secret import Secret


@dataclass(frozen=True, slots=True)
class KeySettings:
    """What a new key may do."""

    tags: tuple[str, ...] = ()
    reusable: bool = False
    ephemeral: bool = False
    preauthorized: bool = False
    lifetime: timedelta = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class MintRequest:
    """A key to mint. `rotation_id` is what finds it again if the answer is lost."""

    rotation_id: str
    description: str
    settings: KeySettings


@dataclass(frozen=True, slots=True)
class Minted:
    """A key that was just minted; the only time that an issuer shows its secret."""

    secret: Secret
    key_id: str
    expires: datetime | None


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What an issuer says of a key; `key_type` is `auth` for the keys that tskeys may revoke."""

    key_id: str
    valid: bool
    key_type: str = "auth"
    description: str = ""
    created: datetime | None = None
    expires: datetime | None = None
    settings: KeySettings | None = None
