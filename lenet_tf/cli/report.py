"""Writes the page about a run, or one that compares several.

    python -m lenet_tf report --workdir=runs/mnist
    python -m lenet_tf report --workdir runs/a runs/b runs/c --output=compared.html

The page of a run, report.html in its directory, has curves, the confusion matrix, the
worst mistakes, calibration, kernels and maps. `train` writes it at its end; this writes
it again, for a run that is going on or for its best epoch too. A page is one file that
needs no network.
"""

from __future__ import annotations

from absl import flags

from lenet_tf.cli import program
from lenet_tf.cli.workdirs import chosen
from lenet_tf.experiment.comparisons import compare
from lenet_tf.experiment.reports import write_report

_WORKDIR = program.define_path(
    "workdir", "runs/mnist", "Directory of the run; further ones may follow it."
)
_CHECKPOINT = flags.DEFINE_enum(
    "checkpoint",
    "latest",
    ["latest", "best"],
    "Checkpoint whose answers the page of a single run shows.",
)
_OUTPUT = program.define_path(
    "output",
    None,
    "HTML file to write; by default report.html in the directory of the run, or "
    "comparison.html here for several.",
)

_arguments: list[str] = []


def _main() -> None:
    workdirs = chosen(_WORKDIR, _arguments)
    if len(workdirs) > 1:
        written = compare(workdirs, _OUTPUT.value or "comparison.html")
    else:
        written = write_report(workdirs[0], _CHECKPOINT.value, _OUTPUT.value)
    print(f"open {written} in a browser")


def main() -> None:
    """Runs the program, and exits."""
    program.run(_main, __doc__, _arguments)
