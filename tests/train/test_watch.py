"""Norms and learning rates among the metrics, as computed by hand."""

import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
import tensorflow as tf

import lenet_tf
from lenet_tf.optim import SGD, LearningRate
from lenet_tf.parallel import make_strategy
from lenet_tf.train import Action, TrainStep, Update

Batch = Mapping[str, tf.Tensor]
ALL = ("gradient_norm", "update_norm", "learning_rate")
CLIP = 0.5
X = np.random.default_rng(0).normal(size=[11, 2]).astype(np.float32)
Y = (X @ [2.0, -1.0] + 3).astype(np.float32)
WEIGHT = np.linspace(0, 2, 11).astype(np.float32)


class Line(tf.Module):
    """[B, 2] -> [B], from (0, 0, 0)."""

    def __init__(self, dtype: str = "float32") -> None:
        super().__init__(name="line")
        self.w = tf.Variable(tf.zeros([2], dtype), name="w")
        self.b = tf.Variable(0.0, name="b")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        product = tf.linalg.matvec(tf.cast(x, self.w.dtype), self.w)
        return tf.cast(product, tf.float32) + self.b


def squares(model: Line, batch: Batch, training: bool) -> dict[str, tf.Tensor]:
    error = model(batch["x"]) - batch["y"]
    return {"loss": error**2, "other": tf.abs(error)}


def batches() -> lenet_tf.Batches:
    """11 weighted examples: batches of 4, 4 and 3."""
    return lenet_tf.Batches({"x": X, "y": Y, "weight": WEIGHT}, 4)


def rate_of_step(step: tf.Tensor) -> tf.Tensor:
    return 0.1 / (1.0 + tf.cast(step, tf.float32))


def by_hand(rate: Callable[[int], float], epochs: int) -> list[dict[str, float]]:
    """Each epoch's mean of the three, in float64, of a clipped line."""
    w, step, rows = np.zeros(3), 0, []
    inputs = np.concatenate([X, np.ones([11, 1])], axis=1).astype(np.float64)
    for _ in range(epochs):
        seen, weights = [], []
        for first in (0, 4, 8):
            rows_of = slice(first, first + 4)
            x, y, weight = inputs[rows_of], Y[rows_of], WEIGHT[rows_of]
            gradient = 2 * x.T @ (weight * (x @ w - y)) / weight.sum()
            norm = np.linalg.norm(gradient)
            change = rate(step) * gradient * min(1, CLIP / norm)
            w, step = w - change, step + 1
            seen.append([norm, np.linalg.norm(change), rate(step - 1)])
            weights.append(weight.sum())
        means = np.average(seen, axis=0, weights=weights)
        rows.append(dict(zip(ALL, means, strict=True)))
    return rows


def line(
    strategy: tf.distribute.Strategy, rate: LearningRate, **kwargs: object
) -> lenet_tf.Trainer:
    with strategy.scope():
        model = Line()
    return lenet_tf.Trainer(
        model,
        SGD(rate),
        squares,
        strategy=strategy,
        clip_norm=CLIP,
        steps_per_loop=2,
        **kwargs,
    )


def test_a_row_has_the_weighted_means_of_the_steps(
    strategy: tf.distribute.Strategy,
) -> None:
    trainer = line(strategy, rate_of_step, watch=ALL, micro_batches=2)
    history = trainer.fit(batches(), epochs=2)
    expected = by_hand(lambda step: 0.1 / (1 + step), epochs=2)
    for name in ALL:
        np.testing.assert_allclose(
            history[name], [row[name] for row in expected], rtol=1e-5
        )
    assert "gradient_norm" not in trainer.evaluate(batches())


def test_watching_changes_no_bit_and_resumes(tmp_path: pathlib.Path) -> None:
    """In mid-epoch, with what was watched before, and with watching begun later."""
    strategy = make_strategy(2)

    def fit(folder: str, watch: tuple[str, ...], *actions: Action) -> tuple:
        trainer = line(strategy, 0.1, watch=watch)
        saver = lenet_tf.Saver(tmp_path / folder, best=None)
        history = trainer.fit(batches(), epochs=2, saver=saver, actions=actions)
        return history, [v.numpy().tobytes() for v in trainer.model.variables]

    def stop(moment: lenet_tf.Moment) -> None:
        if moment.step == 2:
            raise lenet_tf.StopRequested()

    whole, weights = fit("whole", ALL)
    plain, same = fit("plain", ())
    assert same == weights
    assert plain == {name: whole[name] for name in ("loss", "other")}
    for folder, watch in (("a", ALL), ("b", ())):
        with pytest.raises(lenet_tf.StopRequested):
            fit(folder, watch, stop)
    assert fit("a", ALL) == (whole, weights)
    late, same = fit("b", ALL)
    assert same == weights
    assert np.isnan(late["gradient_norm"][0])  # not known of the first two steps
    assert late["gradient_norm"][1] == whole["gradient_norm"][1]


def test_a_rate_that_is_set_in_the_run_is_shown_as_it_was_used() -> None:
    strategy = make_strategy(2)
    with strategy.scope():
        rate = tf.Variable(0.25)

    def halve(moment: lenet_tf.Moment) -> None:
        rate.assign(rate / 2)

    trainer = line(strategy, rate, watch=["learning_rate"])
    history = trainer.fit(
        batches(), epochs=3, actions=[lenet_tf.at(lenet_tf.every_epoch(), halve)]
    )
    assert history["learning_rate"] == [0.25, 0.125, 0.0625]
    fixed = line(strategy, 0.1, watch=["learning_rate"]).fit(batches(), epochs=1)
    assert fixed["learning_rate"] == pytest.approx([0.1], rel=1e-7)


def test_several_updates_have_each_its_own_names_and_dtypes() -> None:
    strategy = make_strategy(2)
    with strategy.scope():
        model = Line("float64")
    updates = {
        "slope": Update([model.w], SGD(0.5)),
        "offset": Update([model.b], SGD(0.25), loss="other"),
    }
    seen: list[str] = []

    def note(moment: lenet_tf.Moment) -> None:
        seen.extend(moment.metrics)

    trainer = lenet_tf.Trainer(model, updates, squares, strategy=strategy, watch=ALL)
    plain = lenet_tf.Batches({"x": X, "y": Y}, 11)
    history = trainer.fit(plain, epochs=1, actions=[note])
    assert set(history) == {"loss", "other"} | {
        f"{update}_{name}" for update in updates for name in ALL
    }
    assert set(seen) == set(history)
    slope = np.linalg.norm(2 * X.T.astype(np.float64) @ -Y / 11)
    offset = abs(np.sign(-Y).mean())
    for name, norm, rate in (("slope", slope, 0.5), ("offset", offset, 0.25)):
        assert history[f"{name}_learning_rate"] == [rate]
        assert history[f"{name}_gradient_norm"] == pytest.approx([norm], rel=1e-6)
        assert history[f"{name}_update_norm"] == pytest.approx([rate * norm], rel=1e-6)


def test_a_norm_that_float32_squares_would_overflow_is_finite() -> None:
    def huge(model: Line, batch: Batch, training: bool) -> dict[str, tf.Tensor]:
        return {"loss": 1e25 * model.b * tf.ones_like(batch["y"])}

    trainer = lenet_tf.Trainer(Line(), SGD(1e-20), huge, watch=["gradient_norm"])
    history = trainer.fit(batches(), epochs=1)
    assert history["gradient_norm"] == pytest.approx([1e25], rel=1e-6)


def test_a_step_that_loss_scaling_skips_has_norms_of_zero() -> None:
    """The first gradient overflows float16 until the scale is low enough."""
    strategy = make_strategy(2)
    with strategy.scope():
        model = tf.Module(name="point")
        model.w = tf.Variable(0.0)

    def line16(model: tf.Module, batch: Batch, training: bool) -> dict[str, tf.Tensor]:
        w = tf.cast(model.w, tf.float16)
        return {"loss": tf.cast(w * tf.ones_like(batch["half"]), tf.float32)}

    trainer = lenet_tf.Trainer(
        model, SGD(0.5), line16, strategy=strategy, loss_scaling=True, watch=ALL
    )
    half = {"half": np.ones([16], np.float16)}
    history = trainer.fit(lenet_tf.Batches(half, 16), epochs=4)
    assert trainer.state.loss_scale is not None
    skipped = int(trainer.state.loss_scale.skipped.numpy())
    assert 0 < skipped < 4
    done = 4 - skipped
    assert history["gradient_norm"] == [0.0] * skipped + [1.0] * done
    assert history["update_norm"] == [0.0] * skipped + [0.5] * done
    assert history["learning_rate"] == [0.5] * 4


def test_wrong_watching_is_refused_before_any_step() -> None:
    with pytest.raises(lenet_tf.UsageError, match=r"watch has 'loss': choose among"):
        TrainStep(squares, watch=["loss"])

    def clash(model: Line, batch: Batch, training: bool) -> dict[str, tf.Tensor]:
        return {**squares(model, batch, training), "update_norm": batch["y"]}

    class Still:
        """An optimizer that does nothing, and has no learning rate."""

        def build(self, variables: Sequence[tf.Variable]) -> None: ...

        def apply(
            self, gradients: Sequence, variables: Sequence, step: object
        ) -> None: ...

    model = Line()
    val = {"val": Update([model.w], SGD(0.1)), "b": Update([model.b], SGD(0.1))}
    for optimizer, forward, message in [
        (SGD(0.1), clash, "returned 'update_norm', which is also watched"),
        (val, squares, "'val_gradient_norm' would look like"),
        (Still(), squares, r"which has no rate\(step\)"),
    ]:
        trainer = lenet_tf.Trainer(model, optimizer, forward, watch=ALL)
        with pytest.raises(lenet_tf.UsageError, match=message) as error:
            trainer.fit(batches(), epochs=1)
        assert "\n" not in str(error.value)
        assert trainer.state.step.numpy() == 0
