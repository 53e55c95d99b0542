"""The interface of an issuer."""

from abc import ABC, abstractmethod
from datetime import datetime

from tskeys.keyinfo import KeyInfo, Minted, MintRequest


class Issuer(ABC):
    """Who mints, looks up and revokes keys.

    Every method raises IssuerRefused where the issuer said no and IssuerUnreachable where it said nothing
    that makes sense.
    """

    name: str
    """What the config calls it; error texts begin with it."""

    @abstractmethod
    def mint(self, request: MintRequest) -> Minted:
        """Mint a key, at most once; raise MintUnanswered where it may exist although no answer came.

        NeedsPerson where a person has to do it and none is there.
        """

    @abstractmethod
    def lookup(self, key_id: str) -> KeyInfo | None:
        """Return what the issuer knows of a key, or None where it says that there is none."""

    @abstractmethod
    def find(self, rotation_id: str) -> list[KeyInfo]:
        """Return the keys minted for this rotation, revoked ones too if the issuer still lists them."""

    @abstractmethod
    def list(self) -> list[KeyInfo]:
        """Return every auth key that the credential may see."""

    @abstractmethod
    def revoke(self, key_id: str) -> None:
        """Revoke a key; one that is gone already is no error.

        NeedsPerson where only a person can.
        """

    @abstractmethod
    def clock(self) -> datetime | None:
        """Return the time on the issuer's clock, or None where it has none."""
