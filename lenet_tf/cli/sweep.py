"""Trains over a grid of settings and several seeds, and compares the results.

    python -m lenet_tf sweep --grid='learning_rate=1e-3,3e-3;activation=tanh,relu'

Each point is run with three seeds, or as many as `--seeds` says. The settings of
`train` are flags here too, for all runs. The same command again goes on where a sweep
was stopped or killed; complete runs are only read.
"""

from __future__ import annotations

from absl import flags

from lenet_tf.cli import program, setting_flags
from lenet_tf.experiment.config import Config
from lenet_tf.experiment.reports import REPORT_FILE
from lenet_tf.experiment.sweeps import grid, sweep, table

setting_flags.define(Config)
with program.group("Sweep"):
    _GRID = flags.DEFINE_string(
        "grid",
        "",
        "Settings and their values, as in 'epochs=1,2;activation=tanh,relu'.",
    )
    _SEEDS = flags.DEFINE_integer("seeds", 3, "Number of runs of each point.")
    _WORKDIR = program.define_path("workdir", "runs/sweep", "Directory of the sweep.")


def _main() -> None:
    settings = setting_flags.given(Config)
    if "seed" in settings:
        raise flags.Error("seed is given: a sweep takes the seeds 0 to --seeds - 1")
    rows = sweep(settings, grid(_GRID.value), _SEEDS.value, _WORKDIR.value)
    print(table(rows))
    page = _WORKDIR.value / REPORT_FILE
    print(f"see {page if page.exists() else _WORKDIR.value}")


def main() -> None:
    """Runs the program, and exits."""
    program.run(_main, __doc__)
