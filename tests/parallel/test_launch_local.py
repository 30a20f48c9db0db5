"""Behaviour of scripts/launch_local.py, on workers without TensorFlow."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable

import pytest
from programs import SCRIPTS

HEAD = """
import json, os, pathlib, signal, sys, time
task = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
"""


def start(script: pathlib.Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPTS / "launch_local.py"), *options]
    return subprocess.Popen(
        [*command, "--", str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def program(tmp_path: pathlib.Path, body: str) -> pathlib.Path:
    path = tmp_path / "worker.py"
    path.write_text(HEAD + textwrap.dedent(body))
    return path


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


SLEEPER = """
here = pathlib.Path(__file__).parent / f"{task}.pid"
def end(signum, frame):
    print("told", signum)
    sys.exit(128 + signum)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, end)
here.with_suffix(".tmp").write_text(str(os.getpid()))
here.with_suffix(".tmp").rename(here)
time.sleep(60)
"""


def sleepers(tmp_path: pathlib.Path) -> list[int]:
    """Waits for both workers to be ready, and returns their process ids."""
    files = [tmp_path / f"{i}.pid" for i in range(2)]
    until(lambda: all(file.exists() for file in files))
    return [int(file.read_text()) for file in files]


def test_workers_get_addresses_of_their_own_and_their_lines_are_told_apart(
    tmp_path: pathlib.Path,
) -> None:
    body = """
    config = json.loads(os.environ["TF_CONFIG"])
    print(len(set(config["cluster"]["worker"])), config["task"]["type"])
    print(os.environ["no_grpc_proxy"], file=sys.stderr)
    """
    launcher = start(program(tmp_path, body), "--workers=3")
    stdout, stderr = launcher.communicate(timeout=30)
    assert launcher.returncode == 0
    assert sorted(stdout.splitlines()) == [f"[worker {i}] 3 worker" for i in range(3)]
    assert sorted(stderr.splitlines()) == [f"[worker {i}] 127.0.0.1" for i in range(3)]


def test_flags_after_the_dashes_go_to_the_script(tmp_path: pathlib.Path) -> None:
    script = program(tmp_path, "print(sys.argv[1:])")
    command = [sys.executable, str(SCRIPTS / "launch_local.py"), "--workers=1", "--"]
    done = subprocess.run(
        [*command, str(script), "--epochs=3", "--workers=9"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == "[worker 0] ['--epochs=3', '--workers=9']\n"


def test_a_program_of_ours_is_started_by_its_name() -> None:
    command = [sys.executable, "-m", "lenet_tf", "launch_local", "--workers=2", "--"]
    done = subprocess.run(
        [*command, "train", "--epochs=x"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert sorted(line.split(": ")[0] for line in done.stderr.splitlines()) == [
        f"[worker {i}] error" for i in range(2)
    ]
    assert done.stderr.count("epochs") == 2


def test_more_workers_than_the_system_allows_are_one_line(
    tmp_path: pathlib.Path,
) -> None:
    limited = ["sh", "-c", 'ulimit -n 20; exec "$@"', "sh", sys.executable]
    script = str(program(tmp_path, "time.sleep(60)"))
    done = subprocess.run(
        [*limited, str(SCRIPTS / "launch_local.py"), "--workers=30", "--", script],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: --workers is 30, but worker ")
    assert done.stderr.endswith("(Too many open files): ask for fewer\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("sys.exit(3 if task == 1 else 0)", 3),
        ("time.sleep(task); sys.exit(4 + task)", 4),
        ("os.kill(os.getpid(), 9) if task == 1 else time.sleep(0.2)", 137),
        ("sys.exit(5) if task == 1 else time.sleep(60)", 5),
    ],
    ids=["one fails", "both fail", "one is killed", "one fails, the other stays"],
)
def test_the_status_is_that_of_the_first_that_failed(
    tmp_path: pathlib.Path, body: str, status: int
) -> None:
    launcher = start(program(tmp_path, body), "--grace=0.5")
    launcher.communicate(timeout=30)
    assert launcher.returncode == status


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on_to_all(tmp_path: pathlib.Path, signum: int) -> None:
    launcher = start(program(tmp_path, SLEEPER))
    sleepers(tmp_path)
    launcher.send_signal(signum)
    stdout, _ = launcher.communicate(timeout=30)
    assert launcher.returncode == 128 + signum
    assert sorted(stdout.splitlines()) == [
        f"[worker {i}] told {int(signum)}" for i in range(2)
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="by a call that only Linux has")
def test_workers_do_not_outlive_a_launcher_that_was_killed(
    tmp_path: pathlib.Path,
) -> None:
    launcher = start(program(tmp_path, SLEEPER))
    pids = sleepers(tmp_path)
    launcher.kill()
    launcher.communicate(timeout=30)  # to the end of what the workers may write
    until(lambda: not any(os.path.exists(f"/proc/{pid}/exe") for pid in pids))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "the following arguments are required: command"),
        (["--workers=0", "--", "x.py"], "--workers is 0: it must be 1 to 256"),
        (
            ["--workers=12345678901", "--", "x.py"],
            "--workers is 12345678901: it must be 1 to 256",
        ),
        (["--workers=x", "--", "x.py"], "argument --workers: invalid int value: 'x'"),
        (["--grace=-1", "--", "x.py"], "--grace is -1.0: it must be 0 or more"),
        (["--", "trian"], "there is no trian: after -- name a script, or train"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(arguments: list[str], line: str) -> None:
    command = [sys.executable, str(SCRIPTS / "launch_local.py"), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {line}; see --help\n"
