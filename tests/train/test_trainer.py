"""The outer loop: equality over replicas, exact counts, traces, exact resume."""

import pathlib
from collections.abc import Mapping

import numpy as np
import pytest
import tensorflow as tf

import lenet_tf
from lenet_tf.data.batches import Batches
from lenet_tf.nn.losses import classification
from lenet_tf.optim.adam import AdamState, adam_update
from lenet_tf.optim.sgd import sgd_update

Arrays = dict[str, np.ndarray]


def make_trainer(
    strategy: tf.distribute.Strategy | None = None, optimizer: str = "adam", **options
) -> lenet_tf.Trainer:
    strategy = strategy or lenet_tf.make_strategy(2)
    with strategy.scope():
        model = lenet_tf.LeNet5(seed=1)
    rule = lenet_tf.Adam(1e-3) if optimizer == "adam" else lenet_tf.SGD(0.1, 0.9)
    return lenet_tf.Trainer(model, rule, strategy=strategy, **options)


def state(trainer: lenet_tf.Trainer) -> list[np.ndarray]:
    """Weights and slots."""
    slots = [
        v
        for slot in trainer.state.updates["optimizer"].optimizer.slots.values()
        for v in slot
    ]
    return [v.numpy() for v in (*trainer.model.trainable_variables, *slots)]


@pytest.mark.parametrize(("optimizer", "tolerance"), [("sgd", 1e-5), ("adam", 1e-4)])
def test_any_number_of_replicas_gives_the_weights_of_plain_tensorflow(
    strategy: tf.distribute.Strategy, digits: Arrays, optimizer: str, tolerance: float
) -> None:
    trainer = make_trainer(strategy, optimizer)
    history = trainer.fit(Batches(digits, 32, seed=5), epochs=5)  # 20 steps
    plain, losses = plain_run(digits, optimizer)
    for ours, theirs in zip(trainer.model.trainable_variables, plain, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-5)
    for variable in trainer.model.trainable_variables:
        copies = strategy.experimental_local_results(variable)
        for copy in copies:
            np.testing.assert_array_equal(copy, copies[0])


def plain_run(digits: Arrays, optimizer: str) -> tuple[list[tf.Variable], list[float]]:
    """The same 20 steps as an eager loop over slices, with the textbook rules."""
    model = lenet_tf.LeNet5(seed=1)
    variables = model.trainable_variables
    first = [tf.zeros_like(v) for v in variables]
    second = [tf.zeros_like(v) for v in variables]
    means = []
    for epoch in range(5):
        order = lenet_tf.data.order.epoch_order(103, 5, tf.constant(epoch)).numpy()
        total = 0.0
        for batch in range(4):
            index = order[32 * batch : 32 * (batch + 1)]
            with tf.GradientTape() as tape:
                share = {k: v[index] for k, v in digits.items()}
                loss = classification(model, share, True)["loss"]
                mean = tf.reduce_mean(loss)
            total += float(tf.reduce_sum(loss))
            gradients = tape.gradient(mean, variables)
            for i, gradient in enumerate(gradients):
                value = variables[i].value()
                if optimizer == "sgd":
                    value, first[i] = sgd_update(value, first[i], gradient, 0.1, 0.9)
                else:
                    value, first[i], second[i] = adam_update(
                        AdamState(value, first[i], second[i]),
                        gradient,
                        4 * epoch + batch,
                        1e-3,
                    )
                variables[i].assign(value)
        means.append(total / 103)
    return list(variables), means


@pytest.mark.parametrize("batch_size", [3, 32, 50, 103, 200])
def test_evaluation_counts_each_example_once(
    strategy: tf.distribute.Strategy, digits: Arrays, batch_size: int
) -> None:
    trainer = make_trainer(strategy)
    result = trainer.evaluate(Batches(digits, batch_size))
    expected = classification(trainer.model, digits, False)
    assert result["examples"] == 103
    assert result["accuracy"] == float(np.sum(expected["accuracy"])) / 103
    assert result["loss"] == pytest.approx(np.mean(expected["loss"]), rel=1e-6)


def test_one_trace_for_training_and_one_for_evaluation(digits: Arrays) -> None:
    trainer = make_trainer(steps_per_loop=3)
    trainer.fit(Batches(digits, 32, seed=0), epochs=3, validation=Batches(digits, 40))
    trainer.evaluate(Batches({k: v[:77] for k, v in digits.items()}, 40))
    assert trainer.traces == {"train": 1, "evaluate": 1}


def test_steps_per_loop_changes_no_number(digits: Arrays) -> None:
    runs = []
    for steps in (1, 3, 100):
        trainer = make_trainer(steps_per_loop=steps)
        history = trainer.fit(Batches(digits, 16, seed=2), epochs=2)
        runs.append((state(trainer), history))
    for other, history in runs[1:]:
        assert history == runs[0][1]
        for a, b in zip(runs[0][0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_run_stopped_in_mid_epoch_resumes_bit_for_bit(
    digits: Arrays, tmp_path: pathlib.Path
) -> None:
    def batches() -> Batches:
        return Batches(digits, 16, seed=2)  # 7 steps an epoch

    whole = make_trainer(steps_per_loop=2)
    expected = whole.fit(batches(), epochs=3, validation=batches())

    def stop_at_11(moment: lenet_tf.Moment) -> None:
        if moment.step >= 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_trainer(steps_per_loop=2).fit(
            batches(),
            epochs=3,
            validation=batches(),
            saver=lenet_tf.Saver(tmp_path, steps=1),
            actions=[stop_at_11],
        )
    resumed = make_trainer(steps_per_loop=3)
    saver = lenet_tf.Saver(tmp_path)
    history = resumed.fit(batches(), epochs=3, validation=batches(), saver=saver)
    assert history == expected
    for a, b in zip(state(whole), state(resumed), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_custom_experiment_is_one_function() -> None:
    """Linear regression by a user's module, against the closed-form solution."""

    class Line(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.slope = tf.Variable(0.0)
            self.offset = tf.Variable(0.0)

    def forward(model: Line, batch: dict, training: bool) -> dict:
        error = model.slope * batch["x"] + model.offset - batch["y"]
        return {"loss": error**2, "absolute_error": tf.abs(error)}

    rng = np.random.default_rng(0)
    x = rng.normal(size=50).astype(np.float32)
    y = (3 * x - 2 + rng.normal(size=50)).astype(np.float32)
    weight = rng.random(50).astype(np.float32)
    strategy = lenet_tf.make_strategy(3)
    with strategy.scope():
        model = Line()
    trainer = lenet_tf.Trainer(model, lenet_tf.SGD(0.2), forward, strategy=strategy)
    data = Batches({"x": x, "y": y, "weight": weight}, 50)
    history = trainer.fit(data, epochs=100)
    design = np.stack([x, np.ones(50)], axis=1) * np.sqrt(weight)[:, None]
    slope, offset = np.linalg.lstsq(design, y * np.sqrt(weight))[0]
    assert float(model.slope.numpy()) == pytest.approx(slope, abs=1e-5)
    assert float(model.offset.numpy()) == pytest.approx(offset, abs=1e-5)
    error = np.abs(slope * x + offset - y)
    assert history["absolute_error"][-1] == pytest.approx(
        np.average(error, weights=weight), rel=1e-4
    )


def test_a_tf_data_dataset_trains_like_arrays(digits: Arrays) -> None:
    dataset = tf.data.Dataset.from_tensor_slices(digits)
    runs = []
    for source in (digits, dataset, lambda epoch: dataset):
        trainer = make_trainer()
        trainer.fit(Batches(source, 32), epochs=2)
        runs.append(state(trainer))
    for other in runs[1:]:
        for a, b in zip(runs[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_bad_arguments_are_refused_with_the_fix(
    digits: Arrays, tmp_path: pathlib.Path
) -> None:
    strategy = lenet_tf.make_strategy(2)
    with pytest.raises(lenet_tf.UsageError, match=r"strategy\.scope\(\)"):
        lenet_tf.Trainer(lenet_tf.LeNet5(), lenet_tf.SGD(0.1), strategy=strategy)
    with pytest.raises(lenet_tf.UsageError, match="trainable"):
        lenet_tf.Trainer(tf.Module(name="empty"), lenet_tf.SGD(0.1))
    with pytest.raises(lenet_tf.UsageError, match="steps_per_loop is 0"):
        make_trainer(steps_per_loop=0)
    with pytest.raises(lenet_tf.UsageError, match="epochs is -1"):
        make_trainer().fit(Batches(digits, 32), epochs=-1)
    for bad, hint in [
        (lambda m, b, t: tf.zeros([]), "dict"),
        (lambda m, b, t: {"score": b["weight"]}, "'loss'"),
        (lambda m, b, t: {"loss": tf.reduce_mean(b["weight"])}, r"shape \[32\]"),
    ]:
        model = lenet_tf.LeNet5()
        trainer = lenet_tf.Trainer(model, lenet_tf.SGD(0.1), bad)
        with pytest.raises(lenet_tf.UsageError, match=hint):
            trainer.fit(Batches(digits, 32), epochs=1)
    with pytest.raises(lenet_tf.UsageError, match="val_f1"):
        make_trainer().fit(
            Batches(digits, 32),
            epochs=1,
            validation=Batches(digits, 32),
            saver=lenet_tf.Saver(tmp_path, best="val_f1"),
        )


def test_no_epochs_train_nothing(digits: Arrays) -> None:
    trainer = make_trainer()
    before = state(trainer)
    assert trainer.fit(Batches(digits, 32), epochs=0) == {}
    for a, b in zip(before, state(trainer), strict=True):
        np.testing.assert_array_equal(a, b)


def everything(
    model: lenet_tf.LeNet5, batch: Mapping[str, tf.Tensor], training: bool
) -> dict[str, tf.Tensor]:
    """A forward function that uses all: dropout, weights, a confusion matrix."""
    logits = model(lenet_tf.standardize(batch["image"]), training=training)
    if training:
        logits = lenet_tf.dropout(batch, logits, 0.3, salt=0)
    return {
        "loss": lenet_tf.softmax_cross_entropy(logits, batch["label"]),
        "accuracy": lenet_tf.correct(logits, batch["label"]),
        "confusion": lenet_tf.nn.confusion(logits, batch["label"]),
    }


@pytest.mark.parametrize(
    ("optimizer", "tolerance", "batch_size"),
    [("sgd", 1e-5, 2), ("sgd", 1e-5, 32), ("adam", 1e-4, 50)],
)
def test_clipping_weights_dropout_and_metrics_are_the_same_on_1_to_4_replicas(
    digits: Arrays, batch_size: int, optimizer: str, tolerance: float
) -> None:
    """Shards are ragged, and empty: 2 examples on 4 replicas, 103 of 32 and 50."""
    weight = np.random.default_rng(1).random(103).astype(np.float32)
    data = {**digits, "weight": weight}
    data = {k: v[: 10 if batch_size == 2 else 103] for k, v in data.items()}
    runs = []
    for replicas in (1, 2, 3, 4):
        strategy = lenet_tf.make_strategy(replicas)
        with strategy.scope():
            model = lenet_tf.LeNet5(seed=1)
        rule = lenet_tf.Adam(1e-3) if optimizer == "adam" else lenet_tf.SGD(0.1, 0.9)
        trainer = lenet_tf.Trainer(
            model, rule, everything, strategy=strategy, clip_norm=0.05, seed=4
        )
        batches = Batches(data, batch_size, seed=5)
        history = trainer.fit(batches, epochs=4)
        runs.append((state(trainer), history, trainer.evaluate(batches)))
    for weights, history, result in runs[1:]:
        for a, b in zip(runs[0][0], weights, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)
        np.testing.assert_allclose(history["loss"], runs[0][1]["loss"], rtol=1e-4)
        assert result["examples"] == runs[0][2]["examples"] == len(data["label"])
        for name in ("confusion", "loss", "accuracy"):
            np.testing.assert_allclose(result[name], runs[0][2][name], rtol=1e-4)
    expected = everything(trainer.model, data, False)
    np.testing.assert_allclose(
        result["confusion"],
        np.einsum("bij,b->ij", expected["confusion"], data["weight"]),
        rtol=1e-5,
    )
    assert result["accuracy"] == pytest.approx(
        np.average(expected["accuracy"], weights=data["weight"]), rel=1e-5
    )


def test_the_gradient_is_clipped_after_the_all_reduce(
    strategy: tf.distribute.Strategy, digits: Arrays
) -> None:
    """One SGD step at rate 1 moves the weights by the clipped norm, on any replicas."""
    with strategy.scope():
        model = lenet_tf.LeNet5(seed=1)
    before = [v.numpy() for v in model.trainable_variables]
    trainer = lenet_tf.Trainer(
        model, lenet_tf.SGD(1.0), strategy=strategy, clip_norm=0.01
    )
    trainer.fit(Batches(digits, 103), epochs=1)
    moved = [
        a - b.numpy() for a, b in zip(before, model.trainable_variables, strict=True)
    ]
    norm = np.sqrt(sum(np.sum(m.astype(np.float64) ** 2) for m in moved))
    assert norm == pytest.approx(0.01, rel=1e-4)
