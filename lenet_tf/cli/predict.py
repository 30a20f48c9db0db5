"""Tells which digits are in pictures, by the network of a run.

    python -m lenet_tf predict seven.png photos/ --workdir=runs/mnist
    curl -s https://example.org/four.webp | python -m lenet_tf predict -

Files, folders of them, or `-` for a picture on the standard input: PNG, JPEG, WebP,
GIF, of any size and colours. The digit is found, scaled and centred as MNIST's were.
Networks of other datasets get the whole picture, scaled to the size of their images.

A picture that cannot be read is told in a line, and the others are done; the exit
status is then 1.
"""

from __future__ import annotations

import io
import json
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np
from absl import flags

from lenet_tf.cli import program
from lenet_tf.errors import UsageError
from lenet_tf.experiment.network import Network, load_network

_WORKDIR = program.define_path("workdir", "runs/mnist", "Directory of the run.")
_CHECKPOINT = flags.DEFINE_enum(
    "checkpoint", "best", ["latest", "best"], "Checkpoint whose weights are used."
)
_JSON = flags.DEFINE_bool("json", False, "Whether to print a JSON object per picture.")
_SEVERAL = flags.DEFINE_bool(
    "several", False, "Whether a picture may have several digits, side by side."
)
_WHOLE = flags.DEFINE_bool(
    "whole",
    None,
    "Whether to scale the whole picture to the size of an image, instead of finding a "
    "digit in it; by default for all datasets but MNIST.",
)

_arguments: list[str] = []


def _main() -> int:
    if not _arguments:
        raise flags.Error("no picture is given: name files or folders, or - for stdin")
    network = load_network(_WORKDIR.value, _CHECKPOINT.value)
    whole = _WHOLE.value
    if whole is None:
        whole = network.splits.name != "mnist"
    if whole and _SEVERAL.value:
        raise flags.Error("several and whole are both given: leave one out")
    status = 0
    for name in _arguments:
        for path in _each(name):
            try:
                if isinstance(path, UsageError):
                    raise path
                print(_answer(network, path, whole), flush=True)
            except UsageError as error:
                prefix = "" if str(path) in str(error) else f"{path}: "
                print(f"error: {prefix}{error}", file=sys.stderr, flush=True)
                status = 1
    return status


def _each(name: str) -> Iterator[pathlib.Path | UsageError]:
    """Yields the files that an argument stands for, or what is wrong with it."""
    from lenet_tf.pictures import picture_files

    try:
        yield from picture_files(name)
    except UsageError as error:
        yield error


def _answer(network: Network, path: pathlib.Path, whole: bool) -> str:
    """Returns what is in a picture, as a line."""
    from lenet_tf.pictures import find_digit, find_digits, fit_picture, read_picture

    file: pathlib.Path | IO[bytes] = path
    if str(path) == "-":
        file = io.BytesIO(sys.stdin.buffer.read())
    picture = read_picture(file)
    boxes: Sequence[tuple[float, float, float, float] | None]
    if whole:
        images, boxes = fit_picture(picture, network.splits.image_shape)[None], [None]
    else:
        digits = find_digits(picture)
        if not _SEVERAL.value:
            if len(digits) > 1:
                print(
                    f"{path} has {len(digits)} things side by side, which were taken "
                    "for one digit: --several takes each for one",
                    file=sys.stderr,
                )
            digits = [find_digit(picture)]
        images = np.stack([digit.image for digit in digits])
        boxes = [digit.box for digit in digits]
    found = []
    for probabilities, box in zip(network.probabilities(images), boxes, strict=True):
        first, second = np.argsort(-probabilities)[:2]
        names = network.splits.class_names
        found.append(
            {
                "class": names[first],
                "probability": round(float(probabilities[first]), 4),
                "runner_up": names[second],
                "runner_up_probability": round(float(probabilities[second]), 4),
                **({"box": [round(side, 4) for side in box]} if box else {}),
            }
        )
    if _JSON.value:
        return json.dumps({"file": str(path), "found": found})
    lines = [
        f"{one['class']}  {one['probability']:.1%}  "
        f"(then {one['runner_up']}, {one['runner_up_probability']:.1%})"
        for one in found
    ]
    name = str(path) if str(path).isprintable() else repr(str(path))
    return f"{name}: {', '.join(lines)}"


def main() -> None:
    """Runs the program, and exits."""
    program.run(_main, __doc__, _arguments)
