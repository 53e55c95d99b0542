"""Whom an entry is encrypted to: PASSWORD_STORE_KEY, else the nearest `.gpg-id`, as pass 1.7.4 reads it."""

import os

from tskeys import atomic
from tskeys.errors import BackendUnavailable, StoreError, StoreUnavailable, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tskeys_pass.gpg import Gpg

GPG_ID = ".gpg-id"


def nearest(root: int, folder: str) -> str | None:
    """Return the path of the `.gpg-id` that counts for a folder of the store, relative to its root."""
    while True:
        path = f"{folder}/{GPG_ID}" if folder else GPG_ID
        try:
            os.stat(path, dir_fd=root)
            return path
        except (FileNotFoundError, NotADirectoryError):
            pass
        if not folder:
            return None
        folder = folder.rpartition("/")[0]


def of(root: int, folder: str, gpg: "Gpg") -> list[str]:
    """Return the recipients of what lies in a folder.

    Raises BackendUnavailable where none is said, and StoreError for a list without a valid signature where
    PASSWORD_STORE_SIGNING_KEY asks for one.
    """
    found = os.environ.get("PASSWORD_STORE_KEY", "").split()
    if not found:
        path = nearest(root, folder)
        if path is None:
            raise BackendUnavailable(f"no {GPG_ID} at or above {folder or 'the store'}", hint=HINT)
        text = _read(root, path)
        _verify(root, path, text, gpg)
        lines = (line.partition("#")[0].strip() for line in text.decode(errors="replace").splitlines())
        found = [line for line in lines if line]
        if not found:
            raise BackendUnavailable(f"{path} names nobody", hint=HINT)
    for recipient in found:
        if recipient.startswith("-"):
            raise UsageError(f"{recipient!r} is no recipient: it would be an option of gpg")
    return found


HINT = "Say who may read the store with: pass init GPG-ID…"


def _verify(root: int, path: str, text: bytes, gpg: "Gpg") -> None:
    wanted = os.environ.get("PASSWORD_STORE_SIGNING_KEY", "").split()
    if not wanted:
        return
    hint = "Look at what changed in it; if all of it is meant, sign it with: pass init GPG-ID…"
    try:
        signature = _read(root, f"{path}.sig")
    except FileNotFoundError:
        raise StoreError(
            f"{path} is not signed, and PASSWORD_STORE_SIGNING_KEY asks for it", hint=hint
        ) from None
    # By descriptor, so that what was verified is what is used.
    signed = os.memfd_create("signature")
    try:
        os.write(signed, signature)
        os.lseek(signed, 0, os.SEEK_SET)
        options = [
            "--no-auto-key-retrieve",
            "--enable-special-filenames",
            "--verify",
            "--",
            f"-&{signed}",
            "-",
        ]
        done = gpg.run(options, text, pass_on=[signed])
    finally:
        os.close(signed)
    valid = {print_ for line in done.of("VALIDSIG") for print_ in (line[0], line[-1])}
    if done.code or done.of("REVKEYSIG") or not valid.intersection(wanted):
        raise StoreError(f"the signature of {path} is not one of PASSWORD_STORE_SIGNING_KEY's", hint=hint)


def _read(root: int, path: str) -> bytes:
    try:
        return atomic.read_at(root, path)[0]
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreUnavailable(f"{path}: {error.strerror}") from None
