"""Kills a training at random moments, and compares its end with an undisturbed run.

    python benchmarks/soak.py --kills=50
    python benchmarks/soak.py --kills=20 --train_flag=--ema=0.99 --train_flag=--shift=2

Real MNIST at a small size, by lenet_tf train in processes of its own. Mostly SIGKILL,
some SIGTERM and SIGINT; when a run comes to its end before all kills are spent, its end
is compared and the next one begins. The exit status is 0 when every end was identical
and every resume went on from the newest checkpoint.
"""

from __future__ import annotations

import fcntl
import math
import os
import pathlib
import pty
import random
import re
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time

import numpy as np
import tensorflow as tf
from absl import flags

import lenet_tf
from lenet_tf.cli import program

_KILLS = flags.DEFINE_integer("kills", 50, "Number of kills in all.", lower_bound=0)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the moments and of the signals.")
_REPLICAS = flags.DEFINE_integer(
    "replicas", 2, "Number of replicas of the training.", lower_bound=1
)
_EPOCHS = flags.DEFINE_integer(
    "epochs", 40, "Number of epochs of each run.", lower_bound=1
)
_SECONDS = flags.DEFINE_float(
    "seconds", 4.0, "Longest time from a run's beginning to its kill.", 0.1, 3600
)
flags.register_validator(
    "seconds", lambda seconds: not math.isnan(seconds), "seconds must be a number"
)
_FLAGS = flags.DEFINE_multi_string(
    "train_flag", [], "A flag of lenet_tf train, such as --train_flag=--ema=0.99."
)

TRAIN = [sys.executable, "-m", "lenet_tf", "train"]
SIGNALS = (*[signal.SIGKILL] * 6, signal.SIGTERM, signal.SIGINT)
TRAIN_EXAMPLES, TEST_EXAMPLES, VALIDATION_EXAMPLES = 3000, 500, 500
STEP = re.compile(r"epoch (\d+)/\d+:[^\r]*?(\d+)/(\d+) \[")
RESUMED = re.compile(r"resumed from \S*?-(\d+)\s")


def small_mnist(folder: pathlib.Path) -> list[str]:
    """Prepares the first images of MNIST in a folder; returns the flags to train."""
    splits = lenet_tf.load("mnist")
    for prefix, examples, count in (
        ("train", splits.train, TRAIN_EXAMPLES),
        ("t10k", splits.test, TEST_EXAMPLES),
    ):
        for kind, values in (
            ("images-idx3", examples.image[:count, ..., 0]),
            ("labels-idx1", examples.label[:count]),
        ):
            shape = struct.pack(f">{values.ndim}I", *values.shape)
            header = bytes([0, 0, 8, values.ndim]) + shape  # of unsigned bytes
            path = folder / f"{prefix}-{kind}-ubyte"
            path.write_bytes(header + values.astype(np.uint8).tobytes())
    lenet_tf.prepare("mnist", data_dir=folder / "data", idx_dir=folder)
    return [
        f"--data_dir={folder / 'data'}",
        f"--validation_examples={VALIDATION_EXAMPLES}",
        f"--epochs={_EPOCHS.value}",
        f"--num_replicas={_REPLICAS.value}",
        "--steps_per_loop=5",
        "--save_steps=10",
        *_FLAGS.value,
    ]


class Training:
    """A process that trains, and shows its progress as on a terminal."""

    def __init__(self, train_flags: list[str], workdir: pathlib.Path) -> None:
        self._terminal, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 200, 0, 0))
        os.set_blocking(self._terminal, False)
        self._shown = ""
        self._lock = workdir / ".lock"
        self.process = subprocess.Popen(
            [*TRAIN, *train_flags, f"--workdir={workdir}"],
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            env={**os.environ, "TQDM_MININTERVAL": "0"},  # every inner loop is shown
        )
        os.close(theirs)

    def begun(self) -> bool:
        """Whether it has taken the workdir."""
        return self._lock.exists() and f"process {self.process.pid} " in (
            self._lock.read_text()
        )

    def shown(self) -> str:
        """All that it has shown so far."""
        try:
            while block := os.read(self._terminal, 65536):
                self._shown += block.decode(errors="replace")
        except OSError:  # nothing more at present, or it has ended
            pass
        return self._shown

    def wait(self, seconds: float) -> bool:
        """Waits for its end; returns whether that has come."""
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            self.shown()
            time.sleep(0.005)
        return self.process.poll() is not None

    def close(self) -> None:
        """Ends it, however it is."""
        self.process.kill()
        self.process.wait()
        self.shown()
        os.close(self._terminal)

    @property
    def resumed(self) -> int:
        """The step that it went on from."""
        found = RESUMED.findall(self.shown())
        return int(found[-1]) if found else 0

    @property
    def step(self) -> int:
        """The last step that it has shown."""
        found = STEP.findall(self.shown())
        if not found:
            return self.resumed
        epoch, done, steps = map(int, found[-1])
        return max(self.resumed, (epoch - 1) * steps + done)


def newest(workdir: pathlib.Path) -> int:
    """The step of the newest checkpoint whose index is there."""
    names = [path.stem for path in workdir.glob("checkpoints/*.index")]
    return max([int(name.rsplit("-", 1)[1]) for name in names], default=0)


def end_of(workdir: pathlib.Path) -> dict[str, bytes]:
    """What a run has come to: tensors, and files that hold no times."""
    path = tf.train.latest_checkpoint(str(workdir / "checkpoints"))
    reader = tf.train.load_checkpoint(path)
    keys = reader.get_variable_to_shape_map()
    tensors = {key: np.asarray(reader.get_tensor(key)) for key in keys}
    end = {k: v.tobytes() for k, v in tensors.items() if v.dtype.kind in "if"}
    for name in ("history.csv", "best/best.json"):
        end[name] = (workdir / name).read_bytes()
    return end


def main() -> int:
    rng = random.Random(_SEED.value)
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        folder = pathlib.Path(temporary)
        train_flags = small_mnist(folder)
        training = Training(train_flags, folder / "undisturbed")
        training.wait(3600)
        training.close()
        if training.process.returncode:
            print(f"the undisturbed run failed: {training.shown()}", file=sys.stderr)
            return 1
        expected = end_of(folder / "undisturbed")
        soak = Soak(train_flags, folder, rng)
        runs, identical = 0, 0
        while soak.kills < _KILLS.value or not runs:
            runs += 1
            workdir = folder / f"run-{runs}"
            same = soak.run(workdir) and end_of(workdir) == expected
            identical += same
            print(f"run {runs} has ended: {'identical' if same else 'DIFFERENT'}")
    good = identical == runs and not soak.faults
    print(
        f"{soak.kills} kills, {soak.resumes} resumes, {runs} runs of {_EPOCHS.value} "
        f"epochs to their end on {_REPLICAS.value} replicas"
    )
    print(
        f"{soak.lost} steps were done beyond the newest checkpoint and done again; "
        f"{soak.faults} resumes from elsewhere than the newest checkpoint"
    )
    print(
        f"{identical} of {runs} ends identical to the undisturbed run "
        f"({len(expected)} tensors and files, bit for bit): "
        f"{'PASSED' if good else 'FAILED'}"
    )
    return 0 if good else 1


class Soak:
    """Runs that are killed again and again, and what that has cost.

    Attributes:
      kills: how many so far.
      resumes: how many of the starts went on from a checkpoint.
      lost: steps that were done beyond the newest checkpoint.
      faults: starts that did not go on from the newest checkpoint.
    """

    def __init__(
        self, train_flags: list[str], folder: pathlib.Path, rng: random.Random
    ) -> None:
        self._flags, self._folder, self._rng = train_flags, folder, rng
        self.kills = self.resumes = self.lost = self.faults = 0

    def run(self, workdir: pathlib.Path) -> bool:
        """Trains to the end through kills; returns whether it has come there."""
        while True:
            before = newest(workdir)
            training = Training(self._flags, workdir)
            try:
                if self._killed(training, workdir, before):
                    continue
                training.wait(3600)
            finally:
                training.close()
            self._count(training, before)
            if training.process.returncode:
                print(f"it failed: {training.shown()}", file=sys.stderr)
            return training.process.returncode == 0

    def _killed(self, training: Training, workdir: pathlib.Path, before: int) -> bool:
        """Kills a training at a random moment, unless it ends, or all are spent."""
        if self.kills >= _KILLS.value:
            return False
        while not training.begun():
            if training.wait(0.01):
                return False
        if training.wait(self._rng.uniform(0, _SECONDS.value)):
            return False
        signum = self._rng.choice(SIGNALS)
        training.process.send_signal(signum)
        status = None
        if training.wait(60):
            status = training.process.returncode
        self._count(training, before)
        self.kills += 1
        lost = max(0, training.step - newest(workdir))
        self.lost += lost
        if status not in (-signum, 128 + signum, 0):
            print(f"it ended with {status}: {training.shown()}", file=sys.stderr)
            self.faults += 1
        print(
            f"kill {self.kills:3}: {signal.Signals(signum).name} at step "
            f"{training.step}, newest checkpoint {newest(workdir)}, lost {lost}, "
            f"exit status {status}",
            flush=True,
        )
        return True

    def _count(self, training: Training, before: int) -> None:
        """Notes from where a training went on, if it came to that."""
        if RESUMED.search(training.shown()):
            self.resumes += 1
        if training.step and training.resumed != before:
            print(f"went on from {training.resumed}, not from {before}")
            self.faults += 1


if __name__ == "__main__":
    program.run(main, __doc__)
