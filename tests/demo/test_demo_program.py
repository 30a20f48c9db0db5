"""The program that serves the page to draw on."""

from __future__ import annotations

import http.client
import pathlib
import signal
import socket

import pytest
from drawn import MAIN, drawing, png
from programs import Program, run


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_program_serves_until_a_signal(
    signum: signal.Signals, trained: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    other = tmp_path / "other"
    other.symlink_to(trained)
    program = Program(MAIN, "demo", "--workdir", str(trained), str(other), "--port=0")
    program.until(lambda: program.said("stdout").endswith("/\n"))
    url = program.said("stdout").strip()
    host, port = url.removeprefix("http://").rstrip("/").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    headers = {"Content-Type": "image/png"}
    connection.request("POST", "/classify", png(drawing(0)), headers)
    assert connection.getresponse().status == 200
    # The connection is open, and a picture may be in work.
    connection.request("POST", "/classify", png(drawing(1)), headers)
    program.send(signum)
    finished = program.wait()
    connection.close()
    assert finished.status == 128 + signum
    assert finished.stdout == f"{url}\n"
    assert finished.stderr == f"stopped by {signum.name}\n"


def test_what_is_wrong_with_the_program_is_one_line(
    trained: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for flags, status, part in [
            ([f"--workdir={trained}", f"--port={port}"], 2, f"port is {port}: "),
            ([f"--workdir={trained}", "--host=no.such.invalid"], 2, "host is no.such"),
            ([f"--workdir={tmp_path}"], 1, "holds no run"),
            ([str(tmp_path)], 1, "holds no run"),
            ([str(tmp_path), f"--workdir={trained}"], 1, "holds no run"),
            (["~nobody.here/run"], 1, "holds no run: it must be a path"),
            (["--port=65536"], 2, "port"),
        ]:
            finished = run(MAIN, "demo", *flags)
            assert (finished.status, finished.stdout) == (status, "")
            assert part in finished.stderr
            assert finished.stderr.count("\n") == 1


def test_a_program_that_others_can_reach_says_so(trained: pathlib.Path) -> None:
    program = Program(
        MAIN, "demo", f"--workdir={trained}", "--host=0.0.0.0", "--port=0"
    )
    program.until(lambda: program.said("stdout").endswith("/\n"))
    program.send(signal.SIGINT)
    finished = program.wait()
    assert finished.stderr.startswith("warning: host is 0.0.0.0: ")
    assert finished.status == 130
