"""The ledger's file: SQLite, its schema with a version, and the machine that it belongs to."""

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tskeys import atomic
from tskeys.errors import LedgerError

_MIGRATIONS = (
    """
    CREATE TABLE meta (field TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    CREATE TABLE keys (
        store TEXT NOT NULL, name TEXT NOT NULL,
        fingerprint TEXT NOT NULL, key_id TEXT NOT NULL, version TEXT NOT NULL,
        issuer TEXT, minted INTEGER NOT NULL, since INTEGER NOT NULL, expires INTEGER,
        PRIMARY KEY (store, name)) STRICT;
    CREATE TABLE rotations (
        rotation_id TEXT PRIMARY KEY, store TEXT NOT NULL, name TEXT NOT NULL, issuer TEXT NOT NULL,
        phase TEXT NOT NULL, started INTEGER NOT NULL, outcome TEXT NOT NULL DEFAULT '',
        old_fingerprint TEXT, old_key_id TEXT, old_version TEXT NOT NULL,
        old_minted INTEGER NOT NULL, old_expires INTEGER,
        new_fingerprint TEXT, new_key_id TEXT, new_version TEXT, new_expires INTEGER) STRICT;
    CREATE INDEX open_rotations ON rotations (store, name) WHERE phase != 'closed';
    CREATE TABLE baselines (
        rotation_id TEXT NOT NULL REFERENCES rotations, consumer TEXT NOT NULL, state TEXT NOT NULL,
        PRIMARY KEY (rotation_id, consumer)) STRICT;
    CREATE TABLE consumers (
        store TEXT NOT NULL, name TEXT NOT NULL, consumer TEXT NOT NULL,
        fingerprint TEXT NOT NULL, invocation TEXT NOT NULL, problem TEXT NOT NULL, at INTEGER NOT NULL,
        PRIMARY KEY (store, name, consumer)) STRICT;
    CREATE TABLE revocations (
        issuer TEXT NOT NULL, key_id TEXT NOT NULL, store TEXT NOT NULL, name TEXT NOT NULL,
        fingerprint TEXT, minted INTEGER NOT NULL, reason TEXT NOT NULL, due INTEGER NOT NULL,
        state TEXT NOT NULL DEFAULT 'waiting', problem TEXT NOT NULL DEFAULT '',
        PRIMARY KEY (issuer, key_id)) STRICT;
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL,
        store TEXT NOT NULL, name TEXT NOT NULL, key_id TEXT NOT NULL, outcome TEXT NOT NULL) STRICT;
    CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
    CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
    """,
)


class Database:
    """The database in the directory `state`, opened safely by any number of processes.

    Raises LedgerError where it cannot be opened, where others may write to it, and for a write to the ledger
    of another machine: a clone must not finish rotations that its original has under way.
    """

    def __init__(self, state: str) -> None:
        self.path = f"{state}/ledger.db"
        _prepare(state, self.path)
        try:
            self._db = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            try:
                self._db.row_factory = sqlite3.Row
                _use_wal(self._db)
                self._db.execute("PRAGMA synchronous=FULL")
                self._db.execute("PRAGMA foreign_keys=ON")
                self._migrate()
                owner = self._db.execute("SELECT value FROM meta WHERE field = 'machine'").fetchone()
            except BaseException:
                self._db.close()
                raise
        except sqlite3.Error as error:
            raise LedgerError(f"{self.path}: {error}") from None
        self.foreign = owner is None or owner["value"] != machine()

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def read(self, query: str, *values: str) -> list[sqlite3.Row]:
        """Return the rows that a query finds."""
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise LedgerError(f"{self.path}: {error}") from None

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Make what is written inside one transaction, durable when it ends; it may be nested."""
        if self.foreign:
            raise LedgerError(
                f"{self.path}: belongs to another machine, of which this one may be a clone",
                hint=f"On a machine that is to stand alone, move {self.path} away: tskeys begins a new one.",
            )
        if self._db.in_transaction:
            yield self._db
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise LedgerError(f"{self.path}: {error}") from None

    def _migrate(self) -> None:
        if self._version() == len(_MIGRATIONS):
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            # Another process may have migrated while this one waited for the lock.
            version = self._version()
            if version > len(_MIGRATIONS):
                raise LedgerError(
                    f"{self.path}: was written by a newer tskeys", hint="Install that version or a later one."
                )
            for number, script in enumerate(_MIGRATIONS[version:], version + 1):
                for statement in _statements(script):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {number}")
            self._db.execute("INSERT OR IGNORE INTO meta (field, value) VALUES ('machine', ?)", (machine(),))
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    def _version(self) -> int:
        version: int = self._db.execute("PRAGMA user_version").fetchone()[0]
        return version


def machine() -> str:
    """Return what tells this machine from its clones: a hash of machine-id(5), which should not be shown."""
    try:
        with open("/etc/machine-id", "rb") as file:
            ident = file.read().strip()
    except OSError:
        ident = b""
    return hashlib.sha256(b"tskeys ledger " + ident).hexdigest()[:32]


def _prepare(state: str, path: str) -> None:
    try:
        os.makedirs(state, mode=0o700, exist_ok=True)
        directory = os.open(state, atomic.DIRECTORY)
        try:
            unsafe = atomic.unsafe(directory, {0, os.geteuid()})
        finally:
            os.close(directory)
        if not unsafe:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            if os.stat(path).st_mode & 0o022:
                unsafe = "others may write to the file"
    except OSError as error:
        raise LedgerError(
            f"{path}: {error.strerror}", hint="`state` in the config says where the ledger is kept."
        ) from None
    if unsafe:
        raise LedgerError(f"{path}: refused, since {unsafe}", hint=f"Run: chmod -R go-w {state}")


def _use_wal(db: sqlite3.Connection) -> None:
    # Switching to WAL does not wait for another process that switches at the same moment.
    deadline = time.monotonic() + 60
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
