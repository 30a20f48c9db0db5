"""A step in micro-batches is the step of the undivided batch."""

import pathlib
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import tensorflow as tf

import lenet_tf
from lenet_tf.optim import SGD, Adam
from lenet_tf.parallel import make_strategy
from lenet_tf.train import Action, TrainState, Update, all_finite, mean_gradients

Batch = Mapping[str, tf.Tensor]
STEPS_PER_EPOCH = 6


class Tagger(tf.Module):
    """A table of words, whose rows a layer classifies; with dropout."""

    def __init__(self) -> None:
        super().__init__(name="tagger")
        table = tf.random.stateless_normal([7, 4], [0, 0])
        self.table = tf.Variable(table, name="table")
        self.output = lenet_tf.nn.Dense(4, 3, (0, 1), "output")

    def __call__(self, batch: Batch, training: bool) -> tf.Tensor:
        x = tf.gather(self.table, batch["word"])
        if training:
            x = lenet_tf.dropout(batch, x, 0.3, salt=1)
        return self.output(x)


def tags(model: Tagger, batch: Batch, training: bool) -> dict[str, tf.Tensor]:
    logits = model(batch, training)
    return {
        "loss": lenet_tf.softmax_cross_entropy(logits, batch["label"]),
        "size": tf.reduce_sum(logits**2, axis=1),
        "confusion": lenet_tf.nn.confusion(logits, batch["label"]),
    }


def words() -> lenet_tf.Batches:
    """53 examples in batches of 10: the last of 6 has 3, and weights differ."""
    rng = np.random.default_rng(0)
    arrays = {
        "word": rng.integers(0, 7, [53], np.int32),
        "label": rng.integers(0, 3, [53], np.int32),
        "weight": rng.uniform(0.0, 2.0, [53]).astype(np.float32),
    }
    arrays["weight"][::9] = 0.0
    return lenet_tf.Batches(arrays, 10, seed=1)


def own_step(state: TrainState, batch: Batch) -> tf.Tensor:
    """A step of one's own, which asks for parts itself."""

    def compute(part: Batch) -> dict[str, tf.Tensor]:
        return tags(state.model, part, True)

    gradients, sums = mean_gradients(compute, batch, state.updates, micro_batches=3)
    for name, update in state.updates.items():
        update.apply(gradients[name], state.updates_done())
    state.average.update(state.updates_done())
    state.metrics.update(sums)
    return all_finite(*gradients["table"].values())


def tagger(strategy: tf.distribute.Strategy, **kwargs: object) -> lenet_tf.Trainer:
    """Two updates, of two losses, with a clip that acts, and a moving average."""
    with strategy.scope():
        model = Tagger()
    updates = {
        "table": Update([model.table], SGD(0.5, momentum=0.9), clip_norm=0.05),
        "output": Update(model.output, Adam(0.01, epsilon=1e-3), loss="size"),
    }
    return lenet_tf.Trainer(
        model, updates, tags, strategy=strategy, ema=0.9, steps_per_loop=4, **kwargs
    )


def result(trainer: lenet_tf.Trainer, epochs: int = 2) -> list[np.ndarray]:
    history = trainer.fit(words(), epochs=epochs)
    average = trainer.state.average
    assert average is not None
    confusion = trainer.state.metrics.sums()
    return [
        *(v.numpy() for v in [*trainer.state.trained, *average.averages]),
        *(np.array(history[name]) for name in ("loss", "size")),
        *confusion.values(),
    ]


@pytest.fixture(scope="module")
def undivided() -> list[np.ndarray]:
    """What one replica gets from whole batches."""
    return result(tagger(make_strategy(1)))


@pytest.mark.parametrize(
    ("replicas", "options"),
    [
        (1, {"micro_batches": 10}),
        (2, {"micro_batches": 3, "loss_scaling": True}),
        (4, {"micro_batches": 3}),
        (2, {"micro_batches": 3, "step": own_step}),
    ],
    ids=lambda value: str(value).split(" at 0x")[0],
)
def test_the_step_is_that_of_the_undivided_batch(
    replicas: int, options: dict, undivided: list[np.ndarray]
) -> None:
    trainer = tagger(make_strategy(replicas), **options)
    for ours, whole in zip(result(trainer), undivided, strict=True):
        np.testing.assert_allclose(ours, whole, rtol=1e-6, atol=1e-6)
    assert trainer.traces["train"] == 1


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_run_in_micro_batches_resumes_bit_for_bit(
    replicas: int, tmp_path: pathlib.Path
) -> None:
    strategy = make_strategy(replicas)

    def fit(folder: str, *actions: Action) -> list[np.ndarray]:
        with strategy.scope():
            model = Tagger()
        trainer = lenet_tf.Trainer(
            model,
            SGD(0.5, momentum=0.9),
            tags,
            strategy=strategy,
            steps_per_loop=4,
            micro_batches=2,
        )
        saver = lenet_tf.Saver(tmp_path / folder, best=None)
        history = trainer.fit(words(), epochs=2, saver=saver, actions=actions)
        return [*(v.numpy() for v in model.variables), np.array(history["size"])]

    def stop(moment: lenet_tf.Moment) -> None:
        if moment.step > STEPS_PER_EPOCH:
            raise lenet_tf.StopRequested()

    with pytest.raises(lenet_tf.StopRequested):
        fit("stopped", stop)
    for ours, whole in zip(fit("stopped"), fit("whole"), strict=True):
        np.testing.assert_array_equal(ours, whole)


@pytest.mark.parametrize(
    ("dtype", "tolerance", "jit_compile"),
    [("float64", 1e-14, False), ("float64", 1e-14, True), ("bfloat16", 1e-2, False)],
)
def test_other_dtypes_and_xla_lose_nothing_by_the_parts(
    dtype: str, tolerance: float, jit_compile: bool
) -> None:
    """Equal to the closed form of a line's gradient."""
    rng = np.random.default_rng(0)
    x = rng.integers(-8, 8, [64, 3]) / 8  # exact in bfloat16
    strategy = make_strategy(2)
    with strategy.scope():
        model = tf.Module(name="line")
        model.w = tf.Variable(tf.zeros([3], dtype))

    def line(model: tf.Module, batch: Batch, training: bool) -> dict[str, tf.Tensor]:
        product = tf.linalg.matvec(tf.cast(batch["x"], dtype), model.w)
        return {"loss": (tf.cast(product, tf.float64) - batch["y"]) ** 2}

    y = x.sum(1)
    trainer = lenet_tf.Trainer(
        model,
        SGD(0.5),
        line,
        strategy=strategy,
        micro_batches=16,
        jit_compile=jit_compile,
    )
    trainer.fit(lenet_tf.Batches({"x": x, "y": y}, 64), epochs=1)
    np.testing.assert_allclose(
        tf.cast(model.w, tf.float64), x.T @ y / 64, rtol=tolerance, atol=0
    )


def test_the_graph_has_a_loop_over_parts_only_with_micro_batches() -> None:
    """So the default step costs nothing, and the graph does not grow with the parts."""
    batches, sizes = words(), []
    for parts in (1, 2, 5):
        trainer = tagger(make_strategy(1), micro_batches=parts)
        spec = {
            name: tf.TensorSpec(s.shape[1:], s.dtype)
            for name, s in batches.spec(parts).items()
        }
        spec["position"] = tf.TensorSpec([10], tf.int32)
        spec["seed"] = tf.TensorSpec([2], tf.int64)
        trainer.start(batches)
        step = tf.function(
            lambda batch, trainer=trainer: trainer._step(trainer.state, batch),
            autograph=False,
        )
        graph = step.get_concrete_function(spec).graph
        loops = [op for op in graph.get_operations() if "While" in op.type]
        assert len(loops) == (parts > 1)
        definition = graph.as_graph_def()
        functions = definition.library.function
        sizes.append(sum(len(f.node_def) for f in functions) + len(definition.node))
    assert sizes[1] == sizes[2]


class Normed(tf.Module):
    """A line behind batch normalization, perhaps frozen; it may count its calls."""

    def __init__(self, frozen: bool = False, counts: bool = False) -> None:
        super().__init__(name="normed")
        self.norm = lenet_tf.nn.BatchNorm(2)
        self.w = tf.Variable(tf.ones([2]), name="w")
        self.calls = tf.Variable(0, trainable=False, name="calls")
        self.frozen, self.counts = frozen, counts

    def __call__(self, batch: Batch, training: bool) -> tf.Tensor:
        if training and self.counts:
            self.calls.assign_add(1)
        x = self.norm(batch["x"], batch, training and not self.frozen)
        return tf.linalg.matvec(x, self.w)


def squares(model: Normed, batch: Batch, training: bool) -> dict[str, tf.Tensor]:
    return {"loss": (model(batch, training) - batch["y"]) ** 2}


def in_parts(state: TrainState, batch: Batch) -> None:
    def compute(part: Batch) -> dict[str, tf.Tensor]:
        return squares(state.model, part, True)

    gradients, sums = mean_gradients(compute, batch, state.updates, micro_batches=2)
    state.updates["optimizer"].apply(gradients["optimizer"], state.updates_done())
    state.metrics.update(sums)


def fit_normed(
    replicas: int, make: Callable[[], Normed], **kwargs: object
) -> lenet_tf.Trainer:
    strategy = make_strategy(replicas)
    with strategy.scope():
        model = make()
    trainer = lenet_tf.Trainer(model, SGD(0.1), squares, strategy=strategy, **kwargs)
    x = np.random.default_rng(0).normal(size=[16, 2]).astype(np.float32)
    trainer.fit(lenet_tf.Batches({"x": x, "y": x.sum(1)}, 8), epochs=1)
    return trainer


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("step", [None, in_parts])
@pytest.mark.parametrize("frozen", [False, True], ids=["normalizing", "counting"])
def test_a_forward_pass_that_changes_variables_is_refused(
    replicas: int, step: Callable | None, frozen: bool
) -> None:
    def make() -> Normed:
        return Normed(frozen=frozen, counts=frozen)

    with pytest.raises(
        lenet_tf.UsageError, match=r"micro_batches is 2.*use micro_batches=1, or"
    ) as error:
        fit_normed(replicas, make, micro_batches=2, step=step)
    assert "\n" not in str(error.value)


def test_a_frozen_normalization_may_be_trained_in_parts() -> None:
    def frozen() -> Normed:
        return Normed(frozen=True)

    whole = fit_normed(1, frozen).model
    divided = fit_normed(2, frozen, micro_batches=2).model
    np.testing.assert_allclose(divided.w.numpy(), whole.w.numpy(), atol=1e-6)


def test_what_only_reads_a_resource_is_no_change() -> None:
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.range(7), tf.range(7) % 3), -1
    )
    look_up = tf.function(table.lookup)

    def forward(model: Tagger, batch: Batch, training: bool) -> dict[str, tf.Tensor]:
        return tags(model, {**batch, "label": look_up(batch["word"])}, training)

    trainer = lenet_tf.Trainer(Tagger(), SGD(0.1), forward, micro_batches=2)
    assert np.isfinite(trainer.fit(words(), epochs=1)["loss"]).all()


def test_wrong_parts_are_refused() -> None:
    for parts in (0, -1):
        with pytest.raises(lenet_tf.UsageError, match=f"micro_batches is {parts}"):
            lenet_tf.Trainer(Tagger(), SGD(0.1), tags, micro_batches=parts)
    with pytest.raises(lenet_tf.UsageError, match=r"10 rows.*into 3 equal parts"):
        tagger(make_strategy(1), step=own_step).fit(words(), epochs=1)

    def with_constant(state: TrainState, batch: Batch) -> None:
        own_step(state, {**batch, "temperature": tf.constant(1.0)})

    with pytest.raises(lenet_tf.UsageError, match=r"'temperature' has shape \(\)"):
        trainer = tagger(make_strategy(1), step=with_constant, micro_batches=3)
        trainer.fit(words(), epochs=1)
