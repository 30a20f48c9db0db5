"""A headless Chromium, driven over WebDriver's HTTP protocol (W3C) by chromedriver."""

from __future__ import annotations

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

    def draw(
        self,
        selector: str,
        points: Sequence[tuple[float, float]],
        pointer: str = "mouse",
        lift: bool = True,
    ) -> None:
        """Draws a stroke on an element.

        Args:
          selector: Of the element.
          points: Shares of the element's width and height.
          pointer: "mouse", "touch" or "pen".
          lift: Whether the stroke ends.
        """
        element = self.post("/element", {"using": "css selector", "value": selector})
        left, top, width, height = self.run(
            "const r = arguments[0].getBoundingClientRect();"
            "return [r.left, r.top, r.width, r.height]",
            element,
        )
        moves = [
            {
                "type": "pointerMove",
                "duration": 20,
                "x": round(left + x * width),
                "y": round(top + y * height),
            }
            for x, y in points
        ]
        actions = [moves[0], {"type": "pointerDown", "button": 0}, *moves[1:]]
        if lift:
            actions.append({"type": "pointerUp", "button": 0})
        source = {
            "type": "pointer",
            "id": pointer,
            "parameters": {"pointerType": pointer},
            "actions": actions,
        }
        self.post("/actions", {"actions": [source]})

    def press(self, *keys: str) -> None:
        """Presses keys together, as WebDriver names them."""
        actions = [{"type": "keyDown", "value": key} for key in keys]
        actions += [{"type": "keyUp", "value": key} for key in reversed(keys)]
        self.post(
            "/actions", {"actions": [{"type": "key", "id": "k", "actions": actions}]}
        )

    def choose(self, selector: str, file: pathlib.Path) -> None:
        """Chooses a file in an input."""
        found = self.post("/element", {"using": "css selector", "value": selector})
        (element,) = found.values()
        self.post(f"/element/{element}/value", {"text": str(file)})

    def screen(self, width: int, height: int) -> None:
        """Gives the page a screen of a size in CSS pixels."""
        sizes = {"width": width, "height": height, "deviceScaleFactor": 1}
        command = "Emulation.setDeviceMetricsOverride"
        self.post(
            "/goog/cdp/execute", {"cmd": command, "params": {**sizes, "mobile": False}}
        )

    def complaints(self) -> list[str]:
        """Returns the errors of the page since the last call."""
        entries = self.post("/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

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
