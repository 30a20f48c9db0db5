"""Shows that a long training does not grow: resident memory after epochs.

    python benchmarks/memory.py --epochs=50

Small epochs of real MNIST with evaluation, checkpoints, history and the best kept, as
scripts/train.py has them. The exit status is 0 when no epoch after the second has more
than 5 % above the second's resident memory.
"""

from __future__ import annotations

import os
import pathlib
import tempfile

from absl import flags
from machine import resident_mebibytes

import lenet_tf
from lenet_tf.cli import program

_EPOCHS = flags.DEFINE_integer(
    "epochs", 50, "Number of epochs, of 2,000 examples each.", lower_bound=3
)
_REPLICAS = flags.DEFINE_integer(
    "replicas", 2, "Number of replicas of the training.", lower_bound=1
)
_BACKGROUND = flags.DEFINE_bool(
    "background_save", False, "Whether checkpoints are written in the background."
)

SHOWN = (2, 5, 10, 20, 30, 40, 50)
GROWTH = 0.05


def main() -> int:
    strategy = lenet_tf.make_strategy(_REPLICAS.value)
    splits = lenet_tf.load("mnist")
    train, held_out = splits.train, splits.validation
    small = lenet_tf.data.Examples(train.image[:2000], train.label[:2000])
    with strategy.scope():
        model = lenet_tf.LeNet5()
    trainer = lenet_tf.Trainer(
        model, lenet_tf.Adam(1e-3), strategy=strategy, steps_per_loop=10
    )
    curve: list[float] = []

    def note(moment: lenet_tf.Moment) -> None:
        curve.append(resident_mebibytes(os.getpid()))

    with tempfile.TemporaryDirectory() as temporary:
        workdir = pathlib.Path(temporary)
        history = lenet_tf.train.HistoryFile(workdir / "history.csv")
        trainer.fit(
            lenet_tf.as_batches(small, 64, seed=0),
            epochs=_EPOCHS.value,
            validation=lenet_tf.as_batches(held_out, 250),
            saver=lenet_tf.Saver(
                workdir, steps=10, background=_BACKGROUND.value, seconds=1
            ),
            actions=[
                lenet_tf.at(lenet_tf.every_epoch(), history),
                lenet_tf.at(lenet_tf.every_epoch(), note),
            ],
            progress=False,
        )
    second, highest = curve[1], max(curve[2:])
    for epoch in (e for e in SHOWN if e <= len(curve)):
        resident = curve[epoch - 1]
        growth = resident / second - 1
        print(f"after epoch {epoch:2}: {resident:7.1f} MiB  {growth:+.1%}")
    growth = highest / second - 1
    flat = growth <= GROWTH
    print(
        f"the highest after the second: {highest:.1f} MiB, {growth:+.1%}: "
        f"{'FLAT' if flat else 'GROWING'}"
    )
    return 0 if flat else 1


if __name__ == "__main__":
    program.run(main, __doc__)
