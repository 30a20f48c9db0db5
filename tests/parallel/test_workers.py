"""Behaviour of several workers: real processes that meet over loopback."""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal

import numpy as np
import pytest
import tensorflow as tf
import worker
from event_reader import events
from local_cluster import cluster_of, tf_config, workers
from programs import Finished, Program

from lenet_tf import make_strategy

WORKER = str(pathlib.Path(worker.__file__))
HERE = f"{pathlib.Path(__file__).parent}/"
EPOCHS = 12


def train(flags: list[str], workdir: pathlib.Path) -> list[Finished]:
    with workers("train.py", *flags, f"--workdir={workdir}") as programs:
        return [program.wait() for program in programs]


def end_of(workdir: pathlib.Path) -> dict[str, object]:
    """Weights, slots, metrics, step and history, bit for bit."""
    path = tf.train.latest_checkpoint(str(workdir / "checkpoints"))
    reader = tf.train.load_checkpoint(path)
    end: dict[str, object] = {
        key: reader.get_tensor(key).tobytes()
        for key in reader.get_variable_to_shape_map()
        if key != "_CHECKPOINTABLE_OBJECT_GRAPH" and not key.startswith("record/")
    }
    end["history"] = (workdir / "history.csv").read_bytes()
    return end


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, flags: list[str]
) -> tuple[pathlib.Path, list[Finished]]:
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    return workdir, train(flags, workdir)


def test_two_workers_give_the_weights_of_one_process_and_count_each_example_once(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "weights.npz"
    with workers(WORKER, str(path)) as programs:
        for program in programs:
            finished = program.wait()
            assert finished.status == 0, finished.stderr
    together, alone = dict(np.load(path)), worker.train(make_strategy(1))
    assert together["examples"] == alone["examples"] == 103
    assert together.keys() == alone.keys()
    for name, value in alone.items():
        np.testing.assert_allclose(together[name], value, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("numbers", "what"),
    [
        (["200"], "the examples of the training data"),
        (["103", "7"], "the checksum of the training data"),
    ],
    ids=["another size", "another label"],
)
def test_workers_with_other_data_neither_wait_nor_train(
    numbers: list[str], what: str, tmp_path: pathlib.Path
) -> None:
    cluster = cluster_of(2)
    both = [
        Program(
            WORKER,
            str(tmp_path / "weights.npz"),
            *(numbers if index else ["103", "3"]),
            environment={"TF_CONFIG": tf_config(cluster, index)},
        )
        for index in range(2)
    ]
    for program in both:
        finished = program.wait(60)
        assert finished.status == 1, finished.stderr
        assert re.search(rf"^error: .*{what}", finished.stderr, re.M)
    assert not (tmp_path / "weights.npz").exists()


def test_only_the_chief_tells(
    undisturbed: tuple[pathlib.Path, list[Finished]],
) -> None:
    workdir, (chief, other) = undisturbed
    assert chief.status == other.status == 0, chief.stderr + other.stderr
    assert chief.stderr.count("epoch ") == EPOCHS
    assert chief.stdout.startswith("test accuracy ")
    assert "on 2 replicas" in chief.stdout
    assert other.stdout == other.stderr == ""
    assert (workdir / "result.json").exists()


def test_the_chief_alone_looks_for_mistakes_and_no_number_changes(
    undisturbed: tuple[pathlib.Path, list[Finished]],
    tmp_path: pathlib.Path,
    flags: list[str],
) -> None:
    for finished in train([*flags, "--tensorboard"], tmp_path / "run"):
        assert finished.status == 0, finished.stderr
    assert end_of(tmp_path / "run") == end_of(undisturbed[0])
    folder = tmp_path / "run/tensorboard"
    for run in (".", "train", "validation"):
        assert len(list((folder / run).glob("*tfevents*"))) == 1
    shown = events(folder / "validation")["mistakes/list"]
    assert [step for step, _ in shown] == [3 * epoch for epoch in range(1, EPOCHS + 1)]


@pytest.mark.parametrize("victim", [0, 1], ids=["chief", "other worker"])
def test_when_one_is_killed_the_other_ends_and_all_of_them_resume_exactly(
    victim: int,
    tmp_path: pathlib.Path,
    flags: list[str],
    undisturbed: tuple[pathlib.Path, list[Finished]],
) -> None:
    with workers("train.py", *flags, f"--workdir={tmp_path / 'run'}") as programs:
        programs[0].until(lambda: "epoch 2/" in programs[0].said())
        os.kill(programs[victim].pid, signal.SIGKILL)
        left = programs[1 - victim].wait(timeout=60)
    assert left.status == 1
    error = left.stderr.splitlines()[-1]
    assert error.startswith("error: ")
    assert error.endswith(
        "was lost: start all workers again with the same command, and the run goes on "
        "from its last checkpoint"
    )
    assert "Traceback" not in left.stderr
    finished = train(flags, tmp_path / "run")
    assert [f.status for f in finished] == [0, 0], finished[0].stderr
    assert "resumed from" in finished[0].stderr
    assert end_of(tmp_path / "run") == end_of(undisturbed[0])


def test_a_sigterm_to_one_worker_stops_all_in_order_and_they_resume_exactly(
    tmp_path: pathlib.Path,
    flags: list[str],
    undisturbed: tuple[pathlib.Path, list[Finished]],
) -> None:
    with workers("train.py", *flags, f"--workdir={tmp_path / 'run'}") as programs:
        programs[0].until(lambda: "epoch 2/" in programs[0].said())
        os.kill(programs[1].pid, signal.SIGTERM)
        chief, other = [program.wait(timeout=60) for program in programs]
    assert chief.status == other.status == 143
    assert "stopped by SIGTERM; saved " in chief.stderr
    assert [f.status for f in train(flags, tmp_path / "run")] == [0, 0]
    assert end_of(tmp_path / "run") == end_of(undisturbed[0])


def test_workers_of_different_flags_or_workdirs_do_not_train_together(
    tmp_path: pathlib.Path, flags: list[str]
) -> None:
    cluster = cluster_of(2)
    programs = [
        Program(
            "train.py",
            *flags,
            f"--workdir={tmp_path / 'run'}",
            f"--seed={i}",
            environment={"TF_CONFIG": tf_config(cluster, i)},
        )
        for i in range(2)
    ]
    finished = [program.wait(timeout=60) for program in programs]
    assert [f.status for f in finished] == [2, 2]
    for i, one in enumerate(finished):
        assert one.stderr.startswith(
            f"error: seed is {i} here, but not in every worker"
        )
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_peer_that_does_not_come_is_an_error_within_the_limit(
    tmp_path: pathlib.Path,
) -> None:
    cluster = cluster_of(2)
    finished = Program(
        "train.py",
        f"--workdir={tmp_path / 'run'}",
        "--worker_timeout=3",
        environment={"TF_CONFIG": tf_config(cluster, 0)},
    ).wait(timeout=60)
    assert finished.status == 1
    assert finished.stderr == (
        f"error: after 3 s worker 1 at {cluster['worker'][1]} does not answer: start "
        "every worker, all with the same cluster, or give them longer with "
        "worker_timeout\n"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("argument", "status"), [("go_on", 1), ("stop", 0)])
def test_a_worker_that_waits_for_one_that_is_lost_is_ended_unless_they_part(
    argument: str, status: int
) -> None:
    with workers(HERE + "watcher.py", argument) as programs:
        for program in programs:
            program.until(lambda program=program: program.said("stdout"))
        os.kill(programs[0].pid, signal.SIGKILL)
        finished = programs[1].wait(timeout=60)
    assert finished.status == status
    if status:
        line = finished.stderr.splitlines()[-1]
        assert re.match(
            r"error: worker 0 at \S+ was lost: start all workers again", line
        )
    assert "Traceback" not in finished.stderr


def test_after_an_error_of_its_own_a_process_is_not_ended_for_a_lost_worker() -> None:
    with workers(HERE + "watcher.py", "fail") as programs:
        for program in programs:
            program.until(lambda program=program: program.said("stdout"))
        os.kill(programs[0].pid, signal.SIGKILL)
        finished = programs[1].wait(timeout=60)
    assert finished.status == 0
    assert "was lost" not in finished.stderr


@pytest.mark.parametrize("victim", [0, 1], ids=["chief", "other worker"])
def test_a_worker_that_dies_before_the_first_collective_is_noticed(
    tmp_path: pathlib.Path, victim: int
) -> None:
    with workers(HERE + "early_loss.py", str(tmp_path)) as programs:
        for program in programs:
            program.until(lambda program=program: program.said("stdout"))
        os.kill(programs[victim].pid, signal.SIGKILL)
        (tmp_path / "go").touch()
        finished = programs[1 - victim].wait(timeout=60)
    assert finished.status == 1
    error = finished.stderr.splitlines()[-1]
    assert re.match(
        rf"error: worker {victim} at \S+ was lost: start all workers", error
    )
    assert "Traceback" not in finished.stderr


@pytest.fixture(scope="module")
def checks() -> list[dict[str, object]]:
    """What each of two workers returned or raised in checks.py, by name."""
    with workers(HERE + "checks.py") as programs:
        finished = [program.wait(timeout=120) for program in programs]
    assert [f.status for f in finished] == [0, 0], finished[0].stderr
    return [dict(map(json.loads, f.stdout.splitlines())) for f in finished]


def test_equal_values_of_all_kinds_are_alike(checks: list[dict[str, object]]) -> None:
    for told in checks:
        assert told["same"] is None
        assert told["nothing"] is None


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("one", ["seed is 3", "seed is 4"]),
        ("two", ["a is 0, c is x", "a is 1, c is None"]),
        ("kinds", ["a is 1, b is 1", "a is True, b is 1"]),
    ],
)
def test_every_value_that_differs_is_named_in_all_workers(
    checks: list[dict[str, object]], name: str, values: list[str]
) -> None:
    for told, value in zip(checks, values, strict=True):
        kind, message = told[name]
        assert kind == "UsageError"
        assert message.startswith(f"{value} here, but not in every worker: start all")


def test_unequal_step_counts_are_an_error_in_all_workers(
    checks: list[dict[str, object]],
) -> None:
    for i, told in enumerate(checks):
        assert told["equal steps"] == [3, 3, 1]
        for name, counts in (("other steps", (3, 2)), ("fewer blocks", (3, 0))):
            kind, message = told[name]
            assert kind == "UsageError"
            assert f" is {counts[i]} here, but not in every worker" in message


def test_a_stop_without_or_with_a_signal_stops_all(
    checks: list[dict[str, object]],
) -> None:
    for told in checks:
        assert told["not stopped"] is None
        assert told["stopped"] == ["StopRequested", "stopped"]
        assert told["by signal"] == ["StopRequested", "stopped by SIGTERM"]
        assert told["by another signal"] == ["StopRequested", "stopped by SIGUSR1"]


def test_what_one_worker_calls_enough_ends_the_run_in_all(
    checks: list[dict[str, object]],
) -> None:
    for told in checks:
        assert told["enough"] == [3, 9]


def test_an_error_is_not_called_a_lost_worker_while_all_are_there(
    checks: list[dict[str, object]],
) -> None:
    for told in checks:
        kind, message = told["error"]
        assert kind == "FailedPreconditionError"
        assert "lost" not in message
