"""The experiment that every program in this folder runs, in NumPy alone.

    options = parse()                          # the same flags for every program
    train, held_out = examples(options)
    start = initial_weights()
    kill_if_due(options, step)                 # after each step
    finish(options, weights, evaluated, rows)  # what peers.py compares

Regression with a small network: dense, batch normalization, ReLU, dropout, dense. The
first example of both sets is an outlier, and the last batch of an epoch is short.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import signal
from collections.abc import Mapping, Sequence

import numpy as np

FEATURES, HIDDEN = 8, 16
LEARNING_RATE, MOMENTUM = 0.01, 0.9
BATCH_NORM_MOMENTUM, EPSILON = 0.9, 1e-3
OUTLIER = 5.0

Arrays = dict[str, np.ndarray]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the flags of a program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", type=pathlib.Path, required=True)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--examples", type=int, default=67)
    parser.add_argument("--held_out", type=int, default=37)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--no_batch_norm", dest="batch_norm", action="store_false")
    parser.add_argument("--shuffle", action="store_true")
    parser.add_argument("--save_every", type=int, help="steps, besides epochs")
    parser.add_argument("--kill_at", type=int, help="step after which it is killed")
    return parser.parse_args(arguments)


def examples(options: argparse.Namespace) -> tuple[Arrays, Arrays]:
    """Returns the training set and the held-out set: x [N, 8] and y [N], float32."""
    return _examples(options.examples, 1), _examples(options.held_out, 2)


def _examples(count: int, seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=[count, FEATURES])
    x[0] *= OUTLIER
    y = np.sin(x[:, 0]) + x[:, 1] + 0.1 * rng.normal(size=count)
    return {"x": x.astype(np.float32), "y": y.astype(np.float32)}


def initial_weights() -> Arrays:
    """Returns name -> initial weights, float32; kernels are [inputs, outputs]."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.normal(size=[FEATURES, HIDDEN]) / FEATURES**0.5,
        "b1": np.zeros(HIDDEN),
        "gamma": np.ones(HIDDEN),
        "beta": np.zeros(HIDDEN),
        "mean": np.zeros(HIDDEN),
        "variance": np.ones(HIDDEN),
        "w2": rng.normal(size=[HIDDEN, 1]) / HIDDEN**0.5,
        "b2": np.zeros(1),
    }
    return {name: value.astype(np.float32) for name, value in weights.items()}


def kill_if_due(options: argparse.Namespace, step: int) -> None:
    """Kills the process and its group, as a machine that fails would, if it is time.

    Args:
      options: Flags; `kill_at` is the number of steps after which to kill.
      step: Number of steps done, over the whole run.
    """
    if step == options.kill_at:
        os.killpg(os.getpgid(0), signal.SIGKILL)


def finish(
    options: argparse.Namespace,
    weights: Mapping[str, np.ndarray],
    evaluated: Mapping[str, float | np.ndarray],
    rows: Sequence[Mapping[str, float]],
) -> None:
    """Writes what a program has come to.

    Args:
      options: Flags; the files go to `directory`.
      weights: Final weights, with the names of `initial_weights`. Those of batch
        normalization are left out where there is none.
      evaluated: `loss`, the mean squared error of the held-out set, and `examples`, the
        number of examples that were counted for it.
      rows: History as the program kept it: `epoch`, counted from 1, and `loss`, the
        mean training loss of that epoch.
    """
    final = {**initial_weights(), **weights}
    np.savez(options.directory / "weights.npz", allow_pickle=False, **final)
    found = {
        "evaluated": {name: float(evaluated[name]) for name in ("loss", "examples")},
        "rows": [dict(row) for row in rows],
    }
    (options.directory / "found.json").write_text(json.dumps(found))
