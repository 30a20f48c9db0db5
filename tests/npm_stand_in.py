"""Puts a script in the place of npm."""

from __future__ import annotations

import pathlib

import pytest


def fake_npm(
    folder: pathlib.Path, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Makes `npm` run a shell script, for as long as the test runs."""
    npm = folder / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}:/usr/bin:/bin")
