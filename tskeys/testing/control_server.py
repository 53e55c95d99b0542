"""A control server on 127.0.0.1 that speaks the keys part of Tailscale's API v2, with faults to switch on.

    python -m tskeys.testing.control_server [--port N] [--clock-offset SECONDS]

It prints one line of JSON when it listens: `url` (what `base_url` is set to), `token` (an API token),
`client` (an OAuth client's secret) and `admin`. It ends when its standard input closes, so that it never
outlives the process that started it. From Python, use `tskeys.testing.server.ControlServer`.

Below `admin` (`/testing`) there is no authentication, and every body is JSON:

    GET    /keys[?all=true]   every key ever made with its `state`: live, revoked, expired (never a secret)
    GET    /requests          what came in: method, path, query, body, status, fault (never a credential)
    DELETE /requests          forget them
    POST   /faults            {"fault": F, "method": "POST", "path": "keys", "times": 1, ...}; see below
    DELETE /faults            all work again
    POST   /settings          any of the fields of `tskeys.testing.keys_api.Settings`
    POST   /revoke, /expire   {"id": ID}, as a person in the admin console or time would
    POST   /advance           {"seconds": N}: the server's clock moves, and the Date header with it
    POST   /logout            access tokens of OAuth clients are forgotten
    POST   /verify            {"key": KEY}: {"id", "live"}: would a node join with it

A fault applies to the next `times` requests (0: until cleared) whose method is the same (absent: any) and
whose path contains `path`:

    slow, slow-answer         wait `seconds` before, or after, the request is processed
    drip                      process, then answer one byte every `seconds`
    429, 503                  refuse, with Retry-After: `retry_after` if given
    500-before, 500-after     fail before, or after, the request was processed
    cut-before, cut-after     close the connection without an answer
    cut-half                  process, then close the connection in the middle of the answer
    garbage                   process, then answer 200 with what is no JSON
    empty                     process, then answer 200 with {}
    huge                      answer 200 with `bytes` of JSON
    redirect                  answer 307 with Location: `to`
"""

import argparse
import json
import os
import sys
import threading
import time
from dataclasses import dataclass, field, fields
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tskeys.testing.keys_api import KeysApi, Reply, Settings

# fmt: off
FAULTS = frozenset([
    "slow", "slow-answer", "drip", "429", "503", "500-before", "500-after", "cut-before", "cut-after",
    "cut-half", "garbage", "empty", "huge", "redirect",
])
# fmt: on


@dataclass(slots=True)
class Fault:
    """A fault and the requests that it applies to."""

    fault: str
    method: str = ""
    path: str = ""
    times: int = 1
    seconds: float = 0.05
    retry_after: str | None = None
    bytes: int = 11_000_000
    to: str = "http://127.0.0.1:1/"


@dataclass(slots=True)
class State:
    """What the handlers share."""

    api: KeysApi = field(default_factory=KeysApi)
    faults: list[Fault] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, method: str, path: str) -> Fault | None:
        """Return the fault that applies, and count it."""
        with self.lock:
            for fault in self.faults:
                if fault.method in ("", method) and fault.path in path:
                    fault.times -= 1
                    if fault.times == 0:
                        self.faults.remove(fault)
                    return fault
        return None

    def admin(self, method: str, path: str, query: str, body: dict[str, Any]) -> Reply:
        """Answer a request below /testing."""
        api = self.api
        match method, path:
            case "GET", "/testing/keys":
                return Reply(200, api.keys(everything="all=true" in query))
            case "GET", "/testing/requests":
                return Reply(200, self.requests)
            case "DELETE", "/testing/requests":
                self.requests.clear()
            case "POST", "/testing/faults":
                fault = Fault(**body)
                if fault.fault not in FAULTS:
                    return Reply(
                        400, {"message": f"no fault {fault.fault!r}; there are {', '.join(sorted(FAULTS))}"}
                    )
                with self.lock:
                    self.faults.append(fault)
            case "DELETE", "/testing/faults":
                with self.lock:
                    self.faults.clear()
            case "POST", "/testing/settings":
                known = {f.name for f in fields(Settings)}
                if not known.issuperset(body):
                    return Reply(400, {"message": f"the settings are {', '.join(sorted(known))}"})
                for name, value in body.items():
                    setattr(api.settings, name, tuple(value) if isinstance(value, list) else value)
            case "POST", "/testing/revoke":
                return Reply(200 if api.revoke(body["id"]) else 404)
            case "POST", "/testing/expire":
                return Reply(200 if api.expire(body["id"]) else 404)
            case "POST", "/testing/advance":
                api.offset += body["seconds"]
            case "POST", "/testing/logout":
                api.log_out()
            case "POST", "/testing/verify":
                return Reply(200, api.verify(body["key"]))
            case _:
                return Reply(404, {"message": "see the docstring of tskeys.testing.control_server"})
        return Reply(200)


class Server(ThreadingHTTPServer):
    """The server with its state; a handler that still waits does not keep it from ending."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, state: State) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.state = state

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up: their deadlines are part of what is tested."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or every answer on a kept connection takes 40 ms
    server: Server

    def do_GET(self) -> None:
        """Answer any method."""
        length = self.headers.get("Content-Length", "0")
        body = self.rfile.read(min(int(length), 1_000_000)) if length.isdigit() else b""
        url = urlsplit(self.path)
        state = self.server.state
        if url.path.startswith("/testing/"):
            try:
                reply = state.admin(self.command, url.path, url.query, json.loads(body or b"{}"))
            except (ValueError, TypeError, KeyError) as error:
                reply = Reply(400, {"message": f"{type(error).__name__}: {error}"})
            self._answer(reply)
            return
        fault = state.take(self.command, url.path)
        seen: dict[str, Any] = {
            "method": self.command,
            "path": url.path,
            "query": url.query,
            "body": _public(body, self.headers.get("Content-Type", "")),
            "status": None,
            "fault": fault.fault if fault else None,
        }
        state.requests.append(seen)
        self._serve(url.path, url.query, body, fault, seen)

    do_POST = do_DELETE = do_PUT = do_GET  # noqa: N815 - the base class calls them so

    def _serve(self, path: str, query: str, body: bytes, fault: Fault | None, seen: dict[str, Any]) -> None:
        what = fault or Fault("")
        if what.fault == "slow":
            time.sleep(what.seconds)
        refused = {
            "429": Reply(429, {"message": "too many requests"}),
            "503": Reply(503, {"message": "service unavailable"}),
            "500-before": Reply(500, {"message": "internal server error"}),
            "redirect": Reply(307),
            "huge": Reply(200, {"keys": ["x" * what.bytes]}),
        }.get(what.fault)
        if what.fault == "cut-before":
            self.close_connection = True
            return
        if refused:
            seen["status"] = refused.status
            headers = {"Location": what.to} if what.fault == "redirect" else {}
            if what.retry_after is not None and what.fault in ("429", "503"):
                headers["Retry-After"] = what.retry_after
            self._answer(refused, headers=headers)
            return
        auth = self.headers.get("Authorization", "")
        reply = self.server.state.api.handle(self.command, path, parse_qs(query), auth, body)
        seen["status"] = reply.status
        if what.fault == "cut-after":
            self.close_connection = True
            return
        if what.fault == "slow-answer":
            time.sleep(what.seconds)
        if what.fault == "500-after":
            reply = Reply(500, {"message": "internal server error"})
        if what.fault == "empty":
            reply = Reply(200, {})
        pause = what.seconds if what.fault == "drip" else None
        half = what.fault == "cut-half"
        self._answer(reply, garbage=what.fault == "garbage", pause=pause, half=half)

    def _answer(
        self,
        reply: Reply,
        *,
        headers: dict[str, str] | None = None,
        garbage: bool = False,
        pause: float | None = None,
        half: bool = False,
    ) -> None:
        data = b"" if reply.body is None else json.dumps(reply.body).encode()
        data = b"<html>this is no JSON" if garbage else data
        self.send_response(200 if garbage else reply.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if half:
            self.close_connection = True
            data = data[: len(data) // 2]
        try:
            for i in range(len(data)) if pause is not None else ():
                self.wfile.write(data[i : i + 1])
                time.sleep(pause or 0)
            self.wfile.write(data if pause is None else b"")
        except OSError:
            self.close_connection = True

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Return the server's time for the Date header."""
        return formatdate(self.server.state.api.now() if timestamp is None else timestamp, usegmt=True)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
        """Log nothing: GET /testing/requests tells."""


def _public(body: bytes, kind: str) -> object:
    text = body.decode("utf-8", "replace")
    if kind.startswith("application/x-www-form-urlencoded"):
        return {k: "***" if k == "client_secret" else v[0] for k, v in parse_qs(text).items()}
    try:
        return json.loads(text) if text else None
    except ValueError:
        return "no JSON"


def main() -> None:
    """Serve until standard input closes."""
    parser = argparse.ArgumentParser(prog="tskeys.testing.control_server", allow_abbrev=False)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--clock-offset", type=float, default=0.0, metavar="SECONDS")
    args = parser.parse_args()
    state = State()
    token, client = state.api.credential("api"), state.api.credential("client")
    state.api.offset = args.clock_offset
    server = Server(args.port, state)
    url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    print(json.dumps({"url": url, "token": token, "client": client, "admin": f"{url}/testing"}), flush=True)
    try:
        while os.read(0, 4096):
            pass
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
