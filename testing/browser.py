"""A headless Chromium, driven by its DevTools protocol: opens pages with a login, takes screenshots, runs scripts."""

import base64
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

from testing.http_client import http

#: The program; None where it is not installed.
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
#: So many seconds for one answer: machines are loaded.
PATIENCE = 120.0


class Browser:
    """One tab."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection, self._numbers = connection, itertools.count(1)
        #: Events of the protocol, oldest first.
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol. Raises AssertionError when it fails."""
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (message := self._receive()).get("id") != number:
            self.events.append(message)
        assert "error" not in message, (method, message)
        return dict(message["result"])

    def cookies(self, url: str, cookies: Mapping[str, str]) -> None:
        for name, value in cookies.items():
            self.call("Network.setCookie", name=name, value=value, url=url)

    def size(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def colors(self, scheme: str) -> None:
        """`light` or `dark`."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def open(self, url: str, until: str = "true") -> None:
        """Go to `url` and wait until the page is loaded and the expression `until` is true there."""
        self.call("Page.navigate", url=url)
        self.wait(f"document.readyState === 'complete' && location.href !== 'about:blank' && ({until})")

    def wait(self, expression: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.run(f"Boolean({expression})") is not True:
            assert time.monotonic() < deadline, f"not true within {PATIENCE:.0f} s: {expression}"
            time.sleep(0.1)

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return found["result"].get("value")

    def screenshot(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def problems(self) -> list[str]:
        """What the browser has logged as an error: scripts that failed, what a policy refused, answers of 4xx."""
        found = []
        for event in self.events:
            if event.get("method") == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
                found.append(str(event["params"]["entry"]["text"]))
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(str(event["params"]["exceptionDetails"]))
        return found

    def requested(self) -> list[str]:
        """The addresses that were requested so far."""
        sent = [event for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def _receive(self) -> dict[str, Any]:
        return dict(json.loads(self._connection.recv(timeout=PATIENCE)))


@contextmanager
def browser() -> Iterator[Browser]:
    """A Chromium of its own. Needs CHROMIUM."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as home:
        command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        command += ["--remote-debugging-port=0", f"--user-data-dir={home}", "--hide-scrollbars", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with connect(_address(Path(home), process), max_size=None, ping_interval=None) as connection:
                yield Browser(connection)
        finally:
            process.terminate()
            process.wait()


def _address(home: Path, process: subprocess.Popen[bytes]) -> str:
    """The address of the first tab's protocol."""
    deadline = time.monotonic() + PATIENCE
    while True:
        assert process.poll() is None, "Chromium has ended"
        assert time.monotonic() < deadline, "Chromium does not answer"
        try:
            port = (home / "DevToolsActivePort").read_text().splitlines()[0]
            tabs = http.get(f"http://127.0.0.1:{port}/json", timeout=5).json()
            return str(next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page"))
        except (OSError, httpx.HTTPError, StopIteration, IndexError):
            time.sleep(0.1)
