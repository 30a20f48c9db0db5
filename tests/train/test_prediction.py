"""Predictions: one row per example, in order, as the model computes it by itself."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import lenet_tf
from lenet_tf import nn
from lenet_tf.data.batches import Batches
from lenet_tf.errors import DataError
from lenet_tf.parallel import make_strategy
from lenet_tf.train.evaluation import Evaluation
from lenet_tf.train.prediction import Function, Prediction

N = 23
X = np.random.default_rng(0).normal(size=[N, 5]).astype(np.float32)
ARRAYS = {"x": X, "y": X[:, 0] - 1}


class Normalized(tf.Module):
    """[B, 5] -> [B, 3], with batch normalization."""

    def __init__(self) -> None:
        super().__init__(name="normalized")
        self.hidden = nn.Dense(5, 4, seed=[0, 0], name="hidden")
        self.norm = nn.BatchNorm(4, momentum=0.5, name="norm")
        self.output = nn.Dense(4, 3, seed=[0, 1], name="output")

    def __call__(self, batch: Mapping[str, Any], training: bool) -> tf.Tensor:
        return self.output(self.norm(self.hidden(batch["x"]), batch, training))


def outputs(model: Normalized, batch: Mapping[str, Any]) -> tf.Tensor:
    return model(batch, False)


def forward(
    model: Normalized, batch: Mapping[str, Any], training: bool
) -> dict[str, tf.Tensor]:
    return {"loss": (model(batch, training)[:, 0] - batch["y"]) ** 2}


def make_model(strategy: tf.distribute.Strategy) -> Normalized:
    with strategy.scope():
        model = Normalized()
        model.norm.moving_mean.assign([0.5, -1, 2, 0])
        model.norm.moving_variance.assign([4, 1, 0.25, 2])
    return model


def prediction(
    strategy: tf.distribute.Strategy,
    data: Batches,
    function: Function = outputs,
    model: tf.Module | None = None,
) -> Prediction:
    spec = data.spec(strategy.num_replicas_in_sync)
    return Prediction(strategy, model or make_model(strategy), function, spec, 0)


def predict(
    strategy: tf.distribute.Strategy,
    data: Batches,
    function: Function = outputs,
    model: tf.Module | None = None,
    steps_per_loop: int = 3,
) -> Any:
    one = prediction(strategy, data, function, model)
    return one.run(data, steps_per_loop, lambda: None)


def stream(arrays: Mapping[str, np.ndarray] = ARRAYS) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(dict(arrays))


@pytest.mark.parametrize("batch_size", [1, 4, 30])
def test_row_i_is_what_the_model_gives_for_example_i(
    strategy: tf.distribute.Strategy, batch_size: int
) -> None:
    model = make_model(strategy)
    data = Batches(ARRAYS, batch_size)
    one = prediction(strategy, data, model=model)
    rows = one.run(data, 3, lambda: None)
    assert rows.shape == (N, 3) and rows.dtype == np.float32
    np.testing.assert_allclose(rows, model(ARRAYS, False), rtol=1e-5, atol=1e-6)
    # A stream, and fewer examples, need no trace of their own.
    for source in (stream(), lambda epoch: stream()):
        again = one.run(Batches(source, batch_size), 100, lambda: None)
        np.testing.assert_array_equal(again, rows)
    fewer = one.run(
        Batches({k: v[:7] for k, v in ARRAYS.items()}, batch_size), 1, lambda: None
    )
    np.testing.assert_array_equal(fewer, rows[:7])
    assert one.traces == 1


def test_outputs_have_names_and_any_dtype_and_shape(
    strategy: tf.distribute.Strategy,
) -> None:
    def function(model: tf.Module, batch: Mapping[str, tf.Tensor]) -> dict:
        x = batch["x"]
        return {
            "half": tf.cast(x, tf.bfloat16),
            "double": tf.cast(x[:, 0], tf.float64) * 3,
            "class": tf.argmax(x, axis=1),
            "positive": x[:, :2] > 0,
            "pair": tf.complex(x[:, 0], x[:, 1]),
            "text": tf.strings.as_string(batch["id"]),
            "empty": x[:, :0],
            "square": x[:, :, None] * x[:, None, :],
            "constant": tf.constant([7] * x.shape[0], tf.uint8),
        }

    data = Batches({"x": X, "id": np.arange(N)}, 5)
    rows = predict(strategy, data, function)
    expected = {
        "half": X.astype(tf.bfloat16.as_numpy_dtype),
        "double": X[:, 0].astype(np.float64) * 3,
        "class": X.argmax(axis=1),
        "positive": X[:, :2] > 0,
        "pair": X[:, 0] + 1j * X[:, 1],
        "text": np.array([str(i).encode() for i in range(N)], object),
        "empty": X[:, :0],
        "square": X[:, :, None] * X[:, None, :],
        "constant": np.full(N, 7, np.uint8),
    }
    assert list(rows) == list(expected)
    for name, value in expected.items():
        assert rows[name].dtype == value.dtype, name
        np.testing.assert_array_equal(rows[name], value)


def test_a_constant_from_outside_is_taken_from_every_replica(
    strategy: tf.distribute.Strategy,
) -> None:
    data = Batches({"x": X[:16]}, 8)
    ramp = tf.range(8 // strategy.num_replicas_in_sync)
    rows = predict(strategy, data, lambda model, batch: ramp)
    np.testing.assert_array_equal(rows, np.tile(ramp, 16 // len(ramp)))


@pytest.mark.parametrize("kind", [dict, stream], ids=["arrays", "stream"])
def test_an_example_of_weight_0_has_a_prediction_of_its_own(
    kind: Callable[..., Any], strategy: tf.distribute.Strategy
) -> None:
    weight = np.where(np.arange(N) % 3, 0.5, 0).astype(np.float32)
    y = np.where(weight > 0, ARRAYS["y"], np.nan)  # the targets that are missing
    data = Batches(kind({"x": X, "y": y, "weight": weight}), 5)

    def function(model: Normalized, batch: Mapping[str, tf.Tensor]) -> dict:
        return {
            "output": model(batch, False),
            **{k: batch[k] for k in (*ARRAYS, "weight")},
        }

    model = make_model(strategy)
    rows = predict(strategy, data, function, model)
    np.testing.assert_allclose(
        rows["output"], model(ARRAYS, False), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(rows["x"], X)
    np.testing.assert_array_equal(rows["y"], y)
    np.testing.assert_array_equal(rows["weight"], weight)
    # Evaluation with the same batches leaves them out as before.
    spec = data.spec(strategy.num_replicas_in_sync)
    result = Evaluation(strategy, model, forward, spec, 0).run(data, 3, lambda: None)
    loss = (rows["output"][:, 0] - y)[weight > 0] ** 2
    assert result["loss"] == pytest.approx(loss.mean(), rel=1e-5)
    assert result["examples"] == (weight > 0).sum()


def test_random_numbers_are_those_of_an_evaluation_on_any_replicas() -> None:
    def noise(model: tf.Module, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return nn.uniform(batch, [], salt=1)

    def marked(
        model: tf.Module, batch: Mapping[str, tf.Tensor], training: bool
    ) -> dict:
        places = tf.one_hot(batch["id"], N)
        return {"noise": places * noise(model, batch)[:, None]}

    data = Batches({"id": np.arange(N)}, 5)
    spec = data.spec(1)
    evaluation = Evaluation(make_strategy(1), tf.Module(), marked, spec, 0)
    expected = evaluation.run(data, 100, lambda: None)["noise"]
    assert len(set(expected)) == N
    for replicas in (1, 2, 4):
        strategy = make_strategy(replicas)
        rows = predict(strategy, data, noise, tf.Module(), steps_per_loop=replicas)
        np.testing.assert_array_equal(rows, expected.astype(np.float32))


def test_a_resumed_run_predicts_the_same_bits_with_the_averaged_weights(
    strategy: tf.distribute.Strategy, tmp_path: pathlib.Path
) -> None:
    runs = []
    for _ in range(2):
        with strategy.scope():
            model = Normalized()
        trainer = lenet_tf.Trainer(
            model, lenet_tf.Adam(0.01), forward, strategy=strategy, ema=0.9
        )
        saver = lenet_tf.Saver(tmp_path)
        trainer.fit(Batches(ARRAYS, 8, seed=0), epochs=2, saver=saver)
        runs.append(trainer.predict(Batches(ARRAYS, 6), outputs))
        live = model(ARRAYS, False).numpy()
        assert trainer.state.average is not None
        with trainer.state.average.in_place():
            np.testing.assert_allclose(
                runs[-1], model(ARRAYS, False), rtol=1e-5, atol=1e-6
            )
        assert np.abs(live - runs[-1]).max() > 1e-4
    np.testing.assert_array_equal(*runs)


def test_by_default_it_gives_what_forward_gives_for_each_example() -> None:
    strategy = make_strategy(2)
    model = make_model(strategy)
    trainer = lenet_tf.Trainer(model, lenet_tf.SGD(0.1), forward, strategy=strategy)
    data = Batches(ARRAYS, 6)
    loss = trainer.predict(data)["loss"]
    expected = forward(model, ARRAYS, False)["loss"]
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-6)
    assert trainer.evaluate(data)["loss"] == pytest.approx(loss.mean(), rel=1e-5)


def test_only_one_block_of_outputs_is_in_the_graph_at_a_time() -> None:
    polls = []
    data = Batches({"x": X[:20]}, 2)

    def large(model: tf.Module, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return tf.tile(batch["x"][:, :1], [1, 2**21])  # 8 MiB an example

    one = prediction(make_strategy(1), data, large)
    rows = one.run(data, 100, lambda: polls.append(1))
    assert len(polls) == 3  # 4 batches of 16 MiB, 4, and 2
    np.testing.assert_array_equal(rows[:, -1], X[:20, 0])


def test_shuffled_batches_are_refused() -> None:
    with pytest.raises(lenet_tf.UsageError, match=r"seed 3.*without a seed"):
        predict(make_strategy(1), Batches(ARRAYS, 5, seed=3))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda m, b: None, "returned a NoneType: return a dense tensor"),
        (lambda m, b: {"a": [1.0]}, "returned 'a' as a list"),
        (lambda m, b: {}, "an empty dict"),
        (lambda m, b: tf.reduce_mean(b["x"]), r"shape \(\) for a batch of 4.*\[4, "),
        (lambda m, b: {"a": b["x"][:2]}, r"'a' of shape \(2, 5\) for a batch of 4"),
        (lambda m, b: tf.boolean_mask(b["x"], b["y"] > 0), r"shape \(None, 5\)"),
        (
            lambda m, b: tf.boolean_mask(b["x"], b["y"][0] > b["x"][0], axis=1),
            r"\(4, None\): all axes",
        ),
        (lambda m, b: tf.RaggedTensor.from_tensor(b["x"]), "a RaggedTensor"),
        (lambda m, b: m(b, True), "changes norm/moving_mean:.*training=False"),
    ],
)
def test_a_function_without_rows_is_refused_in_one_line(
    function: Function, message: str
) -> None:
    with pytest.raises(lenet_tf.UsageError, match=message) as error:
        predict(make_strategy(2), Batches(ARRAYS, 8), function)
    assert "\n" not in str(error.value)


def test_a_label_that_is_missing_is_an_error_only_where_it_is_used() -> None:
    label = np.where(np.arange(N) == 9, -1, 0)
    weight = (label >= 0).astype(np.float32)
    data = Batches({"x": X, "label": label, "weight": weight}, 8)

    def loss(model: Normalized, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return lenet_tf.softmax_cross_entropy(model(batch, False), batch["label"])

    assert np.isfinite(predict(make_strategy(1), data)).all()
    with pytest.raises(DataError, match=r"a label is -1: .*does not use it"):
        predict(make_strategy(1), data, loss)
