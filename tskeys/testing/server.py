"""Start the loopback control server and steer it."""

import json
import subprocess
import sys
from http.client import HTTPConnection
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit


class ControlServer:
    """The control server in a process of its own, for as long as the `with` block lasts.

    `url` is what an issuer takes as base_url, `token` an API token, `client` an OAuth client's secret.
    `settings` are those of `tskeys.testing.keys_api.Settings`.
    """

    def __init__(self, *, clock_offset: float = 0.0, **settings: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tskeys.testing.control_server", f"--clock-offset={clock_offset}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self.stop()
            raise RuntimeError("the control server did not start; its standard error says why")
        said = json.loads(line)
        self.url: str = said["url"]
        self.token: str = said["token"]
        self.client: str = said["client"]
        if settings:
            self.settings(**settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return self._process.pid

    def stop(self) -> None:
        """End the server; twice is no error."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def fault(self, fault: str, *, method: str = "", path: str = "", times: int = 1, **more: Any) -> None:
        """Switch a fault on for the next `times` requests, 0 for all; the server's module lists them."""
        body = {"fault": fault, "method": method, "path": path, "times": times, **more}
        self._admin("POST", "/faults", body)

    def clear_faults(self) -> None:
        """Let everything work again."""
        self._admin("DELETE", "/faults")

    def settings(self, **settings: Any) -> None:
        """Change settings."""
        self._admin("POST", "/settings", settings)

    def keys(self, *, everything: bool = False) -> list[dict[str, Any]]:
        """Return every auth key ever made, with its `state`; with `everything`, the credentials too."""
        found: list[dict[str, Any]] = self._admin("GET", "/keys?all=true" if everything else "/keys")
        return found

    def live(self) -> set[str]:
        """Return the IDs of the auth keys that work."""
        return {key["id"] for key in self.keys() if key["state"] == "live"}

    def requests(self, method: str = "", path: str = "") -> list[dict[str, Any]]:
        """Return the requests that came in, of this method and with this in their path."""
        seen = self._admin("GET", "/requests")
        return [r for r in seen if method in ("", r["method"]) and path in r["path"]]

    def clear_requests(self) -> None:
        """Forget the requests that came in."""
        self._admin("DELETE", "/requests")

    def revoke(self, key_id: str) -> None:
        """Revoke a key or credential as a person in the admin console would."""
        self._admin("POST", "/revoke", {"id": key_id})

    def expire(self, key_id: str) -> None:
        """Let a key or credential expire now."""
        self._admin("POST", "/expire", {"id": key_id})

    def advance(self, seconds: float) -> None:
        """Move the server's clock."""
        self._admin("POST", "/advance", {"seconds": seconds})

    def log_out(self) -> None:
        """Forget the access tokens of OAuth clients."""
        self._admin("POST", "/logout")

    def joins(self, key: bytes) -> bool:
        """Tell whether a node would join with this key now."""
        live: bool = self._admin("POST", "/verify", {"key": key.decode("ascii")})["live"]
        return live

    def _admin(self, method: str, path: str, body: object = None) -> Any:
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=10)
        try:
            connection.request(method, f"/testing{path}", json.dumps(body) if body is not None else None)
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise ValueError(f"the control server refused: {data.decode(errors='replace')}")
        return json.loads(data) if data else None
