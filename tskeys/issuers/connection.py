"""Connections and retries that keep to the deadline of the request they serve.

urllib3's timeouts start anew with every try and every byte; the deadline here covers all of them. What is not
repeatable is sent again only where it surely was not processed: no connection came about, or the answer was
429 (RFC 6585, section 4).
"""

import io
import random
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from http.client import HTTPResponse
from socket import socket
from types import TracebackType
from typing import Any, Self

from urllib3 import exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.response import BaseHTTPResponse
from urllib3.util.retry import Retry

from tskeys.authkey import redact

LIMIT = 10_000_000
"""How many bytes an answer may have; Tailscale's own client reads no more than 10 MB either."""

_ends: ContextVar[float] = ContextVar("_ends")


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Bound everything that is sent and received inside."""
    before = _ends.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _ends.reset(before)


def _left() -> float:
    return _ends.get() - time.monotonic()


def clean(text: str) -> str:
    """Make a stranger's text fit for a terminal: no key, nothing unprintable, 300 characters at most."""
    return "".join(c if c.isprintable() else " " for c in redact(text))[:300].strip()


class TooBig(exceptions.HTTPError):
    """An answer exceeds LIMIT."""


class NotConnected(exceptions.NewConnectionError):
    """No connection came about, so that nothing of the request was sent."""

    def __init__(self, conn: HTTPConnection, why: str, hint: str = "", *, final: bool = False) -> None:
        super().__init__(conn, why)
        self.why, self.hint, self.final = why, hint, final


class _Bounded(io.RawIOBase):
    # A socket's timeout starts anew with every byte; this one does not.
    def __init__(self, sock: socket, raw: io.RawIOBase) -> None:
        self._sock, self._raw, self._size = sock, raw, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = _left()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        size: int | None = self._raw.readinto(buffer)
        self._size += size or 0
        if self._size > LIMIT + 65_536:
            raise TooBig
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(HTTPResponse):
    def __init__(self, sock: socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp: Any = io.BufferedReader(_Bounded(sock, self.fp.detach()))


def _establish(conn: HTTPConnection, connect: Callable[[], None]) -> None:
    # Each address of a host gets this much, so that a black hole on IPv6 leaves time for IPv4.
    conn.timeout = max(_left(), 0.001) / 4
    try:
        connect()
    except ssl.SSLCertVerificationError as error:
        why = f"its certificate is not trusted: {clean(error.verify_message)}"
        raise NotConnected(
            conn, why, "Where the server has a CA of its own, name its certificate in ca_file.", final=True
        ) from None
    except ssl.SSLError as error:
        raise NotConnected(conn, f"no TLS: {clean(error.reason or 'handshake failed')}") from None
    except exceptions.NameResolutionError:
        raise NotConnected(conn, "its name cannot be resolved", "Is the network up, and DNS?") from None
    except (TimeoutError, exceptions.NewConnectionError, exceptions.ConnectTimeoutError) as error:
        cause = error.__cause__
        why = clean(cause.strerror) if isinstance(cause, OSError) and cause.strerror else "no answer in time"
        raise NotConnected(conn, why.lower(), "Is the network up?") from None
    except (OSError, exceptions.HTTPError) as error:
        raise NotConnected(conn, clean(str(error))) from None
    if _left() <= 0:
        raise NotConnected(conn, "no connection in time")


class Http(HTTPConnection):
    """A connection to a loopback address."""

    response_class = _Response

    def connect(self) -> None:
        """Connect within the deadline; raises NotConnected."""
        _establish(self, super().connect)


class Https(HTTPSConnection):
    """A connection with TLS."""

    response_class = _Response

    def connect(self) -> None:
        """Connect within the deadline; raises NotConnected."""
        _establish(self, super().connect)


class PatientRetry(Retry):
    """Repeat what `allowed_methods` allows, with pauses that fit into the deadline."""

    def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:
        """Repeat after 429 whatever it was; urllib3 would send a POST again upon 413 and 503 as well."""
        if status_code == 429:
            return True
        return status_code in self.status_forcelist and self._is_method_retryable(method)

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        """Return the seconds that the server asks for, or None where it asks for nothing sensible."""
        try:
            return super().get_retry_after(response)
        except (exceptions.InvalidHeader, ValueError, OverflowError):
            return None

    def get_backoff_time(self) -> float:
        """Return the seconds to wait at most; urllib3 would try a second time at once."""
        return float(self.backoff_factor * 2 ** max(len(self.history) - 1, 0))

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        """Wait as long as the server asks, else for a random part of the backoff."""
        asked = self.get_retry_after(response) if response else None
        time.sleep(asked or self.get_backoff_time() * random.uniform(0.5, 1))  # noqa: S311 - no secret

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: Any = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        """Count a try; give up where the pause before the next would pass the deadline."""
        asked = self.get_retry_after(response) if response else None
        pause = asked or self.backoff_factor * 2 ** len(self.history)
        final = getattr(getattr(error, "original_error", error), "final", False)
        useless = final or pause >= _left()
        retry = self.new(total=0) if useless else self
        return super(PatientRetry, retry).increment(method, url, response, error, _pool, _stacktrace)
