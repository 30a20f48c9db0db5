"""A headless Chromium, driven over WebDriver's HTTP protocol (W3C) by chromedriver."""

from __future__ import annotations

import base64
import json
import pathlib
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

DRIVER = shutil.which("chromedriver")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]


class Browser:
    """A browser with a profile of its own.

    Args:
      profile: Folder for the profile.
      flags: Further flags of Chromium.
    """

    def __init__(self, profile: pathlib.Path, *flags: str) -> None:
        assert DRIVER and BROWSER
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self._driver = subprocess.Popen(
            [DRIVER, f"--port={port}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._base = f"http://127.0.0.1:{port}"
        self._session = ""
        try:
            self.until(self._ready)
            options = {
                "binary": BROWSER,
                "args": [*FLAGS, f"--user-data-dir={profile}", *flags],
            }
            capabilities = {
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "ALL"},
            }
            made = self._ask(
                "POST", "/session", {"capabilities": {"alwaysMatch": capabilities}}
            )
            self._session = f"/session/{made['sessionId']}"
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        try:
            if self._session:
                self._ask("DELETE", self._session)
        finally:
            self._driver.kill()
            self._driver.wait()

    def open(self, url: str) -> None:
        self.post("/url", {"url": url})

    def post(self, path: str, value: dict[str, Any]) -> Any:
        return self._ask("POST", self._session + path, value)

    def get(self, path: str) -> Any:
        return self._ask("GET", self._session + path)

    def run(self, script: str, *arguments: Any) -> Any:
        """Runs JavaScript in the page; `return` gives back a value."""
        return self.post("/execute/sync", {"script": script, "args": arguments})

    def text(self, selector: str) -> str:
        """Returns the text of the first element, or ""."""
        return self.run(
            "return document.querySelector(arguments[0])?.innerText ?? ''", selector
        )

    def draw(self, selector: str, *strokes: Sequence[tuple[float, float]]) -> None:
        """Draws with a mouse, through points given as shares of the element."""
        element = self.post("/element", {"using": "css selector", "value": selector})
        left, top, width, height = self.run(
            "const r = arguments[0].getBoundingClientRect();"
            "return [r.left, r.top, r.width, r.height]",
            element,
        )
        actions: list[dict[str, Any]] = []
        for points in strokes:
            moves = [
                {
                    "type": "pointerMove",
                    "duration": 20,
                    "x": round(left + x * width),
                    "y": round(top + y * height),
                }
                for x, y in points
            ]
            down = {"type": "pointerDown", "button": 0}
            actions += [moves[0], down, *moves[1:], {"type": "pointerUp", "button": 0}]
        mouse = {"type": "pointer", "id": "mouse", "actions": actions}
        self.post("/actions", {"actions": [mouse]})

    def complaints(self) -> list[str]:
        """Returns what the browser has said of the page, such as errors."""
        return [entry["message"] for entry in self.post("/se/log", {"type": "browser"})]

    def screenshot(self) -> bytes:
        """Returns the visible part of the page as a PNG."""
        return base64.b64decode(self.get("/screenshot"))

    def until(self, condition: Any, timeout: float = 60) -> None:
        """Waits for a condition."""
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, "it never came to that"
            time.sleep(0.02)

    def _ready(self) -> bool:
        try:
            return bool(self._ask("GET", "/status")["ready"])
        except OSError:
            return False

    def _ask(self, method: str, path: str, value: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            self._base + path,
            method=method,
            data=None if value is None else json.dumps(value).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            message = json.load(error)["value"]["message"]
            raise AssertionError(f"{method} {path}: {message}") from None
