"""Several optimizers, losses and frozen parts in the default step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import lenet_tf
from lenet_tf.optim import SGD, Adam
from lenet_tf.parallel import make_strategy
from lenet_tf.train import Update


class Net(tf.Module):
    """A body and a head; `scale` belongs to neither."""

    def __init__(self) -> None:
        super().__init__(name="net")
        self.body = lenet_tf.nn.Dense(3, 4, (1, 1), "body")
        self.head = lenet_tf.nn.Dense(4, 1, (1, 2), "head")
        self.scale = tf.Variable(1.0, name="scale")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return self.scale * self.head(tf.tanh(self.body(x)))[:, 0]


def forward(model: Net, batch: dict, training: bool) -> dict:
    error = model(batch["x"]) - batch["y"]
    return {"loss": error**2, "other": tf.abs(error)}


def data(dtype: type = np.float32) -> lenet_tf.Batches:
    rng = np.random.default_rng(3)
    x = rng.normal(size=[20, 3]).astype(dtype)
    return lenet_tf.Batches({"x": x, "y": x.sum(1)}, 20)


def test_each_update_lowers_its_own_loss_with_its_own_optimizer_and_clip(
    strategy: tf.distribute.Strategy,
) -> None:
    with strategy.scope():
        model = Net()
    updates = {
        "body": Update(model.body, SGD(0.1), loss="other"),
        "head": Update(model.head, Adam(0.01), clip_norm=0.05),
    }
    trainer = lenet_tf.Trainer(model, updates, forward, strategy=strategy)
    twin, batches = Net(), data()
    (block,) = batches.blocks(1, 1, epochs=1)
    batch = {name: value[0] for name, value in block.items()}
    adam = Adam(0.01)
    adam.build(twin.head.trainable_variables)
    for step in range(3):
        with tf.GradientTape(persistent=True) as tape:
            values = forward(twin, batch, True)
            loss, other = (tf.reduce_mean(values[k]) for k in ("loss", "other"))
        for_body = tape.gradient(other, twin.body.trainable_variables)
        for_head = tape.gradient(loss, twin.head.trainable_variables)
        for_head, _ = tf.clip_by_global_norm(for_head, 0.05)
        for gradient, variable in zip(
            for_body, twin.body.trainable_variables, strict=True
        ):
            variable.assign_sub(0.1 * gradient)
        adam.apply(for_head, twin.head.trainable_variables, tf.constant(step, tf.int64))
    trainer.fit(batches, epochs=3)
    for ours, theirs in zip(model.variables, twin.variables, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)
    assert float(model.scale.numpy()) == 1.0  # no update names it


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_variables_of_other_dtypes_are_trained(
    strategy: tf.distribute.Strategy, dtype: str
) -> None:
    with strategy.scope():
        model = tf.Module(name="line")
        model.w = tf.Variable(tf.zeros([3], dtype))
        model.b = tf.Variable(0.0)

    def line(model: tf.Module, batch: dict, training: bool) -> dict:
        product = tf.linalg.matvec(tf.cast(batch["x"], dtype), model.w)
        error = tf.cast(product, tf.float32) + model.b - batch["y"]
        return {"loss": error**2}

    trainer = lenet_tf.Trainer(
        model, SGD(0.2), line, strategy=strategy, clip_norm=5.0, ema=0.9
    )
    history = trainer.fit(data(), epochs=60, validation=data())
    assert history["loss"][-1] < 0.02 < history["loss"][0]
    assert model.w.dtype == dtype
    np.testing.assert_allclose(tf.cast(model.w, tf.float32), [1, 1, 1], atol=0.1)


def test_a_float64_model_computes_in_float64() -> None:
    strategy = make_strategy(2)
    with strategy.scope():
        model = tf.Module(name="point")
        model.w = tf.Variable(tf.zeros([], tf.float64))

    def forward(model: tf.Module, batch: dict, training: bool) -> dict:
        return {"loss": (model.w - batch["y"]) ** 2}

    y = np.array([1 / 3, 1 / 3 + 1e-12])
    trainer = lenet_tf.Trainer(model, SGD(0.5), forward, strategy=strategy)
    trainer.fit(lenet_tf.Batches({"y": y}, 2), epochs=2)
    assert float(model.w.numpy()) == pytest.approx(y.mean(), abs=1e-15)


def test_rows_of_a_table_are_trained() -> None:
    """An embedding's gradient has only the rows that were looked up."""
    strategy = make_strategy(2)
    with strategy.scope():
        model = tf.Module(name="table")
        model.table = tf.Variable(tf.zeros([5, 2]))

    def forward(model: tf.Module, batch: dict, training: bool) -> dict:
        row = tf.gather(model.table, batch["word"])
        return {"loss": tf.reduce_sum((row - 1.0) ** 2, axis=1)}

    trainer = lenet_tf.Trainer(model, SGD(0.25), forward, strategy=strategy)
    words = np.array([0, 0, 3, 4], np.int32)
    trainer.fit(lenet_tf.Batches({"word": words}, 4), epochs=1)
    expected = np.array([0.25, 0, 0, 0.125, 0.125])[:, None] * np.ones(2)
    np.testing.assert_allclose(model.table.numpy(), expected, atol=1e-7)


def test_wrong_updates_are_refused() -> None:
    model = Net()
    adam = Adam(1e-3)
    for optimizer, message in [
        ("adam", r"no build\(\)"),
        ({}, "no updates"),
        ({"all": adam}, "give Update"),
        ({"a": Update(model, adam), "b": Update(model.head, Adam())}, "in another"),
        ({"a": Update(model.body, adam), "b": Update(model.head, adam)}, "its own"),
    ]:
        with pytest.raises(lenet_tf.UsageError, match=message):
            lenet_tf.Trainer(model, optimizer, forward)
    with pytest.raises(lenet_tf.UsageError, match=r"clip_norm is 1.0, with several"):
        lenet_tf.Trainer(model, {"a": Update(model, Adam())}, forward, clip_norm=1.0)
    with pytest.raises(lenet_tf.UsageError, match=r"a Adam, whose apply\(\)"):
        Update(model, keras.optimizers.Adam())
    with pytest.raises(lenet_tf.UsageError, match=r"must be a tf\.Module"):
        lenet_tf.Trainer(keras.Sequential([keras.layers.Dense(1)]), adam, forward)
    with pytest.raises(lenet_tf.UsageError, match="called once"):
        Update(tf.Module(name="late"), Adam())
    with pytest.raises(lenet_tf.UsageError, match="clip_norm is -1"):
        Update(model, Adam(), clip_norm=-1)


def test_a_loss_without_the_model_is_refused_before_any_step() -> None:
    model = Net()

    def forward(model: Net, batch: dict, training: bool) -> dict:
        return {"loss": batch["y"] ** 2}

    trainer = lenet_tf.Trainer(model, SGD(0.1), forward)
    with pytest.raises(lenet_tf.UsageError, match="does not depend on any"):
        trainer.fit(data(), epochs=1)
    assert trainer.state.step.numpy() == 0


def test_other_trainable_variables_than_before_are_refused() -> None:
    model = Net()
    trainer = lenet_tf.Trainer(model, SGD(0.1), forward)
    trainer.fit(data(), epochs=1)
    model.added = tf.Variable(1.0, name="added")
    with pytest.raises(lenet_tf.UsageError, match=r"added.*make another Trainer"):
        trainer.fit(data(), epochs=2)
