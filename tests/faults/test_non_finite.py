"""A NaN or an infinity stops the run before anything of it is saved."""

from __future__ import annotations

import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf
from ends import EXPERIMENT, resume, steps_of
from programs import run

import lenet_tf
from lenet_tf.checkpoint.storage import find_damage


@pytest.mark.parametrize(("pixel", "hit"), [("nan", "hidden/b"), ("inf", "hidden/w")])
def test_a_bad_pixel_ends_the_run_and_leaves_the_last_good_checkpoint(
    experiment: pathlib.Path, tmp_path: pathlib.Path, pixel: str, hit: str
) -> None:
    flags = [f"--workdir={tmp_path}", "--save_steps=1", "--keep=30"]
    finished = run(EXPERIMENT, *flags, f"--bad_pixel={pixel}")
    assert finished.status == 1
    assert "Traceback" not in finished.stderr
    error = finished.stderr.splitlines()[-1]
    match = re.fullmatch(
        rf"error: (?:the loss and )?the gradient of {hit} (?:is|are) not finite at "
        r"step (\d+) \(in the loop of steps (\d+) to (\d+)\): lower the learning rate, "
        r"clip the gradient, or look at the data; the last good checkpoint: (\S+)",
        error,
    )
    assert match, error
    step, first, last = map(int, match.groups()[:3])
    assert first <= step == last <= first + 1
    good = tmp_path / "checkpoints" / f"step-{first - 1}"
    if first == 1:
        assert match[4] == "none yet"
    else:
        assert match[4] == str(good)
        assert steps_of(tmp_path)[-1] == first - 1
        assert find_damage(str(good)) is None
    assert not np.any([path.match("*.tmp") for path in tmp_path.rglob("*")])
    resume(tmp_path, experiment, "--mended")


class Line(tf.Module):
    """y = a + b x, in that order."""

    def __init__(self) -> None:
        super().__init__()
        self.a = tf.Variable(1.0, name="a")
        self.b = tf.Variable(1.0, name="b")

    @property
    def trainable_variables(self) -> tuple[tf.Variable, ...]:
        return self.a, self.b


def forward(model: Line, batch: dict, training: bool) -> dict:
    """A loss whose gradient for b alone overflows where x is huge."""
    return {"loss": model.a * batch["y"] + model.b * batch["x"] * batch["x"]}


@pytest.mark.parametrize(
    ("at", "x", "y", "hit"),
    [(0, np.nan, 1, "b"), (13, 1e30, 1, "b"), (31, 1, np.inf, "a")],
)
def test_the_first_variable_that_was_hit_is_named_on_any_number_of_replicas(
    strategy: tf.distribute.Strategy,
    tmp_path: pathlib.Path,
    at: int,
    x: float,
    y: float,
    hit: str,
) -> None:
    xs, ys = np.ones([32], np.float32), np.ones([32], np.float32)
    xs[at], ys[at] = x, y
    with strategy.scope():
        model = Line()
    trainer = lenet_tf.Trainer(
        model, lenet_tf.SGD(0.1), forward, strategy=strategy, steps_per_loop=3
    )
    batches = lenet_tf.Batches({"x": xs, "y": ys}, 4)
    saver = lenet_tf.Saver(tmp_path, steps=1, keep=30, best=None)
    bad = at // 4 + 1
    loop_start = (bad - 1) // 3 * 3
    with pytest.raises(lenet_tf.errors.NonFiniteError) as error:
        trainer.fit(batches, epochs=1, saver=saver)
    good = (
        str(tmp_path / "checkpoints" / f"step-{loop_start}") if loop_start else "none"
    )
    text = str(error.value).replace(" are not finite", " is not finite")
    assert f"the gradient of {hit} is not finite at step {bad} " in text
    assert f"(in the loop of steps {loop_start + 1} to {bad})" in str(error.value)
    assert f"the last good checkpoint: {good}" in str(error.value)
    if loop_start:
        assert find_damage(good) is None
        assert steps_of(tmp_path)[-1] == loop_start


def test_a_huge_learning_rate_ends_train_with_one_line(
    small_mnist: list[str], tmp_path: pathlib.Path
) -> None:
    flags = ["--optimizer=sgd", "--learning_rate=1e38", "--activation=relu"]
    finished = run("train.py", *small_mnist, *flags, f"--workdir={tmp_path / 'run'}")
    assert finished.status == 1
    (line,) = finished.complaints
    assert "not finite at step" in line
    assert "lower the learning rate" in line


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_padded_example_that_is_not_finite_harms_nothing(
    strategy: tf.distribute.Strategy, clip_norm: float | None
) -> None:
    """Weight 0 leaves an infinite loss out."""
    arrays = {
        "x": np.array([1, 2, np.inf, 3], np.float32),
        "y": np.ones(4, np.float32),
        "weight": np.array([1, 1, 0, 1], np.float32),
    }
    with strategy.scope():
        model = Line()

    def loss(model: Line, batch: dict, training: bool) -> dict:
        return {
            "loss": model.a * batch["y"] + 0 * model.b + tf.stop_gradient(batch["x"])
        }

    trainer = lenet_tf.Trainer(
        model, lenet_tf.SGD(0.1), loss, strategy=strategy, clip_norm=clip_norm
    )
    history = trainer.fit(lenet_tf.Batches(arrays, 4), epochs=2)
    assert np.isfinite(history["loss"]).all()
