"""Every error that tskeys raises, with its exit code and a hint at the next step.

TskeysError                      1
├── UsageError                   2   a wrong option, name or location
│   └── ConfigError              2   a wrong config, with every mistake in it
├── ConsumerLags                 3   the new key is current, but a consumer runs on another one
├── RolledBack                   4   the new key was taken back, the old one is current
├── Findings                     5   something was looked for and found
├── Locked                      11   another run holds the lock
├── IssuerError                 13
│   ├── IssuerRefused           13   it understood and said no
│   ├── IssuerUnreachable       13   nothing came back, or nothing that makes sense
│   │   └── MintUnanswered      13   a key may have been minted that nobody has seen
│   └── NeedsPerson             13   a person has to do it, and none is there
├── KeyExpires                  14   `check`: expired, or about to
├── StoreError                  12
│   ├── KeyNotFound             10
│   ├── StoreUnavailable        12   the store cannot be read now: never taken for an empty one
│   │   └── BackendUnavailable  12   a missing root, mount, library or program
│   ├── CannotDecrypt           12
│   └── Conflict                 1   the store holds another value than expected
├── LedgerError                  1
└── ProcessError                 1   a program failed or took too long

An error's text never holds a secret: backends translate their library's errors `from None` where the
original could carry one. This module imports nothing.
"""


class TskeysError(Exception):
    """Something that tskeys can explain: `str(e)` is one sentence, `hint` the next step or empty."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(TskeysError):
    """A wrong option, name or location."""

    exit_code = 2


class ConfigError(UsageError):
    """A wrong config; the message lists every mistake with file, line and key."""


class ConsumerLags(TskeysError):
    """The new key is current, but a consumer lags or a revocation is overdue."""

    exit_code = 3


class RolledBack(TskeysError):
    """The new key failed its consumers and was revoked; the old one is current."""

    exit_code = 4


class Findings(TskeysError):
    """Something was looked for and found."""

    exit_code = 5


class Locked(TskeysError):
    """Another run holds the lock."""

    exit_code = 11


class IssuerError(TskeysError):
    """The issuer refused or is unreachable."""

    exit_code = 13


class IssuerRefused(IssuerError):
    """The issuer understood the request and said no."""


class IssuerUnreachable(IssuerError):
    """Nothing came back from the issuer, or nothing that makes sense."""


class MintUnanswered(IssuerUnreachable):
    """A request to mint was sent and not answered: a key may be alive that nobody has seen."""


class NeedsPerson(IssuerError):
    """A person has to do this step, and none is there."""


class KeyExpires(TskeysError):
    """A key has expired or is about to."""

    exit_code = 14


class StoreError(TskeysError):
    """A store could not do what it was asked."""

    exit_code = 12


class KeyNotFound(StoreError):
    """The store answered, and holds no key of that name."""

    exit_code = 10


class StoreUnavailable(StoreError):
    """The store cannot be read now. It must never be taken for an empty one."""


class BackendUnavailable(StoreUnavailable):
    """A root, mount, library or program that the backend needs is missing."""


class CannotDecrypt(StoreError):
    """The store holds a key that cannot be decrypted here and now."""


class Conflict(StoreError):
    """The store holds another value than the caller expected: somebody changed it."""

    exit_code = 1


class LedgerError(TskeysError):
    """The ledger cannot be opened, or belongs to another machine."""


class ProcessError(TskeysError):
    """A program failed or took too long."""
