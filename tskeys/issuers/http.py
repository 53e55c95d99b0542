"""The only HTTP client: https, or http to a literal loopback address.

No redirect is followed, because a library that follows one may hand the credential to another host; no proxy,
netrc or SSLKEYLOGFILE is taken from the environment.
"""

import json as jsonlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import unquote, urlencode, urlsplit

import urllib3
from urllib3 import exceptions
from urllib3.response import BaseHTTPResponse

from tskeys.authkey import plausible
from tskeys.errors import ConfigError, IssuerError, IssuerRefused, IssuerUnreachable, UsageError
from tskeys.issuers.connection import LIMIT, Http, Https, NotConnected, PatientRetry, TooBig, clean, deadline
from tskeys.secret import Secret

_TRIES = 5


class Unanswered(IssuerUnreachable):
    """A request was sent, and no answer came or none that makes sense: it may have been processed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered. The body may hold a secret, so it does not print."""

    status: int
    body: object = field(repr=False)
    date: datetime | None
    retry_after: float | None

    @property
    def message(self) -> str:
        """The server's own words, without keys and control characters, or empty."""
        body = self.body if isinstance(self.body, dict) else {}
        for name in ("message", "error_description", "detail", "error"):
            if isinstance(body.get(name), str) and body[name]:
                return clean(body[name])
        return ""


class Client:
    """Talk to one server.

    `timeout` is the deadline of a request in seconds, `backoff` the first pause between tries; `ca_file`
    replaces the system's CAs; `proxy` is `http://[user:password@]host:port`. Raises UsageError.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        ca_file: str | None = None,
        proxy: str | None = None,
        timeout: float = 30.0,
        backoff: float = 0.5,
    ) -> None:
        self._name, self._timeout, self._backoff = name, timeout, backoff
        self._scheme, self._host, self._port, self._prefix = _parse(name, base_url)
        self._proxy = proxy
        if proxy and self._scheme == "http":
            raise UsageError(f"{name}: a proxy would see the credential of an http: address")
        if proxy and not _origin(proxy).startswith(("http://", "https://")):
            raise UsageError(f"{name}: the proxy is not of the form http://host:port")
        self._tls = _tls(name, ca_file) if self._scheme == "https" else None
        self._kept = self._pool()

    def request(
        self,
        method: str,
        path: str,
        *,
        token: Secret | None = None,
        json: object = None,
        form: Mapping[str, str | Secret] | None = None,
        repeat: bool = True,
    ) -> Answer:
        """Send a request and return the answer, whatever its status but a redirect.

        Raises IssuerRefused for a redirect, Unanswered where the request may have been processed, and
        IssuerUnreachable where it surely was not.
        """
        if token is not None and not plausible(token.reveal()):
            raise UsageError(
                f"{self._name}: the credential is no token: it is empty, too short, or has blanks in it",
                hint="It must be one line: an API token (tskey-api-…) or an OAuth client (tskey-client-…).",
            )
        result = self._exchange(method, path, token, json, form, repeat)
        # Raised here, so that no traceback has a frame in which the token stands.
        if isinstance(result, IssuerError):
            raise result
        return result

    def _exchange(
        self,
        method: str,
        path: str,
        token: Secret | None,
        json: object,
        form: Mapping[str, str | Secret] | None,
        repeat: bool,
    ) -> Answer | IssuerError:
        headers = {"Accept": "application/json", "User-Agent": "tskeys"}
        body: bytes | None = None
        if token is not None:
            headers["Authorization"] = f"Bearer {token.reveal().decode('ascii')}"
        if json is not None:
            headers["Content-Type"], body = "application/json", jsonlib.dumps(json).encode()
        if form is not None:
            fields = {k: v.reveal() if isinstance(v, Secret) else v for k, v in form.items()}
            headers["Content-Type"], body = "application/x-www-form-urlencoded", urlencode(fields).encode()
        retry = PatientRetry(
            total=_TRIES - 1,
            read=None if repeat else 0,
            other=None if repeat else 0,
            allowed_methods=frozenset({method}) if repeat else frozenset({"-"}),
            status_forcelist={500, 502, 503, 504},
            backoff_factor=self._backoff,
            raise_on_status=False,
        )
        # A server may close a kept connection just as it is used: did it read the request? Nobody knows.
        pool = self._kept if repeat else self._pool()
        try:
            with deadline(self._timeout):
                response = pool.urlopen(
                    method,
                    self._prefix + path,
                    body,
                    headers,
                    retries=retry,
                    redirect=False,
                    timeout=self._timeout,
                    decode_content=False,
                )
            return self._read(response, retry)
        except exceptions.HTTPError as error:
            return self._explain(error)
        finally:
            if not repeat:
                pool.close()

    def _pool(self) -> urllib3.HTTPConnectionPool:
        pool: urllib3.HTTPConnectionPool
        if self._proxy:
            url = urlsplit(self._proxy)
            basic = f"{unquote(url.username)}:{unquote(url.password or '')}" if url.username else None
            pool = urllib3.ProxyManager(
                _origin(self._proxy),
                proxy_headers=urllib3.make_headers(proxy_basic_auth=basic) if basic else None,
                ssl_context=self._tls,
                proxy_ssl_context=self._tls,
            ).connection_from_host(self._host, self._port, self._scheme)
        elif self._tls:
            pool = urllib3.HTTPSConnectionPool(self._host, self._port, ssl_context=self._tls)
        else:
            pool = urllib3.HTTPConnectionPool(self._host, self._port)
        pool.ConnectionCls = Https if self._tls else Http
        return pool

    def _read(self, response: BaseHTTPResponse, retry: PatientRetry) -> Answer | IssuerError:
        status, data = response.status, response.data
        if 300 <= status < 400:
            return IssuerRefused(
                f"{self._name}: {self._host} answered with a redirect ({status}) to "
                f"{_origin(response.headers.get('Location', ''))}, which is not followed",
                hint="The credential would go along with it. Is base_url right?",
            )
        body: object = None
        if data:
            try:
                body = jsonlib.loads(data)
            except (ValueError, RecursionError):
                if status < 300:
                    return Unanswered(f"{self._name}: {self._host} answered {status} with no JSON")
        return Answer(status, body, _date(response.headers.get("Date")), retry.get_retry_after(response))

    def _explain(self, error: exceptions.HTTPError) -> IssuerError:
        reason: BaseException | None = error.reason if isinstance(error, exceptions.MaxRetryError) else error
        where = self._host
        if isinstance(reason, exceptions.ProxyError):
            reason = reason.original_error
            where = "the proxy" if isinstance(reason, NotConnected) else where
        if isinstance(reason, NotConnected):
            return IssuerUnreachable(
                f"{self._name}: cannot connect to {where}: {reason.why}", hint=reason.hint
            )
        if isinstance(reason, TooBig):
            return Unanswered(f"{self._name}: the answer of {where} has more than {LIMIT // 1_000_000} MB")
        if isinstance(reason, exceptions.TimeoutError):
            return Unanswered(f"{self._name}: {where} gave no full answer within {self._timeout:g} s")
        return Unanswered(f"{self._name}: {where} cut the connection before a full answer came")


def _parse(name: str, base_url: str) -> tuple[str, str, int | None, str]:
    try:
        url = urlsplit(base_url)
        host, port = url.hostname or "", url.port
    except ValueError:
        raise UsageError(f"{name}: base_url is no address") from None
    if url.username is not None or url.query or url.fragment or not clean(base_url) == base_url:
        raise UsageError(f"{name}: base_url holds more than scheme, host, port and path")
    if not host or not (url.scheme == "https" or (url.scheme == "http" and host in ("127.0.0.1", "::1"))):
        raise UsageError(
            f"{name}: base_url {base_url!r} is neither https nor http to 127.0.0.1 or [::1]",
            hint="The credential would cross the network in the clear.",
        )
    return url.scheme, host, port, url.path.rstrip("/")


def _origin(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an invalid address"
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return clean(f"{parts.scheme}://{host}{port}") if host else "the same host"


def _tls(name: str, ca_file: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # create_default_context() obeys SSLKEYLOGFILE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is None:
        context.load_default_certs()
        return context
    try:
        context.load_verify_locations(ca_file)
    except OSError as error:
        reason = error.strerror if not isinstance(error, ssl.SSLError) else "it holds no certificate"
        raise ConfigError(f"{name}: ca_file {ca_file!r} cannot be used: {reason}") from None
    return context


def _date(header: str | None) -> datetime | None:
    try:
        date = parsedate_to_datetime(header or "")
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
