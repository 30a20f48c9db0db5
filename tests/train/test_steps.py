"""Steps of users in place of the default one: GAN, sharpness-aware, on real loops."""

import pathlib
import tempfile
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import tensorflow as tf

import lenet_tf
from lenet_tf.optim import Adam
from lenet_tf.parallel import local_assign_add, make_strategy
from lenet_tf.train import TrainState, Update, all_finite, mean_gradients

Batch = Mapping[str, tf.Tensor]
MakeTrainer = Callable[[tf.distribute.Strategy], lenet_tf.Trainer]


def dense(inputs: int, outputs: int, seed: int, name: str) -> lenet_tf.nn.Dense:
    return lenet_tf.nn.Dense(inputs, outputs, (5, seed), name)


class Pair(tf.Module):
    """A generator of points in the plane, and a critic of them."""

    def __init__(self) -> None:
        super().__init__(name="pair")
        self.generator = dense(3, 2, 1, "generator")
        self.critic = dense(2, 1, 2, "critic")


def critic_values(model: Pair, batch: Batch, salt: int) -> dict[str, tf.Tensor]:
    """The critic's loss on real points and points made from noise."""
    made = model.generator(lenet_tf.nn.uniform(batch, [3], salt=salt))
    real, fake = model.critic(batch["point"])[:, 0], model.critic(made)[:, 0]
    loss = tf.nn.softplus(-real) + tf.nn.softplus(fake)
    return {"critic_loss": loss, "generator_loss": tf.nn.softplus(-fake)}


def gan_step(state: TrainState, batch: Batch) -> tf.Tensor:
    """Five steps of the critic to one of the generator."""
    model = state.model
    finite = []
    for name, salt in [*(("critic", salt) for salt in range(5)), ("generator", 5)]:
        update = {name: state.updates[name]}

        def compute(part: Batch, salt: int = salt) -> dict[str, tf.Tensor]:
            return critic_values(model, part, salt)

        gradients, sums = mean_gradients(compute, batch, update)
        update[name].apply(gradients[name], state.updates_done())
        finite.append(all_finite(*gradients[name].values()))
    state.metrics.update(sums)
    return tf.reduce_all(tf.stack(finite))


def gan(strategy: tf.distribute.Strategy) -> lenet_tf.Trainer:
    with strategy.scope():
        model = Pair()
    updates = {
        "critic": Update(model.critic, Adam(0.01), loss="critic_loss"),
        "generator": Update(model.generator, Adam(0.02), loss="generator_loss"),
    }
    return lenet_tf.Trainer(
        model,
        updates,
        lambda model, batch, training: critic_values(model, batch, 0),
        strategy=strategy,
        step=gan_step,
        steps_per_loop=2,
    )


def line_forward(model: tf.Module, batch: Batch, training: bool) -> dict:
    error = model(batch["point"])[:, 0] - batch["target"]
    return {"loss": error**2, "absolute": tf.abs(error)}


RHO = 0.05


def sharpness_aware_step(state: TrainState, batch: Batch) -> tf.Tensor:
    """SAM (Foret et al., 2021, equation 4): the gradient at the worst point nearby."""
    update = state.updates["optimizer"]

    def compute(part: Batch) -> dict[str, tf.Tensor]:
        return line_forward(state.model, part, True)

    gradients, sums = mean_gradients(compute, batch, state.updates)
    (gradient,) = gradients["optimizer"].values()
    away = tf.split(
        RHO * gradient / tf.norm(gradient),
        [v.shape.num_elements() for v in update.variables],
    )
    before = [v.read_value() for v in update.variables]
    for variable, part in zip(update.variables, away, strict=True):
        local_assign_add(variable, tf.reshape(part, variable.shape))
    gradients, _ = mean_gradients(compute, batch, state.updates)
    for variable, value in zip(update.variables, before, strict=True):
        lenet_tf.parallel.local_assign(variable, value)
    update.apply(gradients["optimizer"], state.updates_done())
    state.metrics.update(sums)
    return all_finite(*gradients["optimizer"].values())


def sharpness_aware(strategy: tf.distribute.Strategy) -> lenet_tf.Trainer:
    with strategy.scope():
        model = dense(2, 1, 3, "line")
    return lenet_tf.Trainer(
        model,
        lenet_tf.SGD(0.1),
        line_forward,
        strategy=strategy,
        step=sharpness_aware_step,
        steps_per_loop=2,
    )


def usual(strategy: tf.distribute.Strategy) -> lenet_tf.Trainer:
    with strategy.scope():
        model = dense(2, 1, 3, "line")
    return lenet_tf.Trainer(
        model, lenet_tf.SGD(0.1), line_forward, strategy=strategy, steps_per_loop=2
    )


KINDS = pytest.mark.parametrize("make", [usual, gan, sharpness_aware])


def points() -> lenet_tf.Batches:
    """53 points in batches of 8: 7 steps an epoch, the last of them ragged."""
    rng = np.random.default_rng(0)
    point = rng.normal([2.0, -1.0], 0.3, [53, 2]).astype(np.float32)
    target = (point @ [1.0, 2.0] + 0.5).astype(np.float32)
    return lenet_tf.Batches({"point": point, "target": target}, 8, seed=1)


def state_of(trainer: lenet_tf.Trainer) -> list[np.ndarray]:
    """All tensors that a checkpoint has."""
    checkpoint = tf.train.Checkpoint(**trainer.state.parts())
    with tempfile.TemporaryDirectory() as folder:
        reader = tf.train.load_checkpoint(checkpoint.write(f"{folder}/state"))
        keys = reader.get_variable_to_shape_map()
        tensors = [key for key in sorted(keys) if not key.startswith(("record", "_"))]
        return [reader.get_tensor(key) for key in tensors]


@KINDS
def test_a_step_gives_the_same_numbers_at_any_number_of_replicas(
    make: MakeTrainer,
) -> None:
    ends = []
    for replicas in (1, 2, 4):
        trainer = make(make_strategy(replicas))
        history = trainer.fit(points(), epochs=4)
        weights = [v.numpy() for v in trainer.state.trained]
        ends.append((weights, history, trainer.evaluate(points())))
    for weights, history, test in ends[1:]:
        for ours, one in zip(weights, ends[0][0], strict=True):
            np.testing.assert_allclose(ours, one, rtol=0, atol=1e-5)
        for name, values in history.items():
            np.testing.assert_allclose(values, ends[0][1][name], rtol=1e-4)
        assert test["examples"] == 53


@pytest.mark.parametrize("replicas", [1, 2])
@KINDS
def test_a_step_stopped_in_mid_epoch_resumes_bit_for_bit(
    make: MakeTrainer, replicas: int, tmp_path: pathlib.Path
) -> None:
    strategy = make_strategy(replicas)
    whole = make(strategy)
    expected = whole.fit(points(), epochs=3, validation=points())

    def stop(moment: lenet_tf.Moment) -> None:
        if moment.step >= 11:
            raise lenet_tf.StopRequested()

    with pytest.raises(lenet_tf.StopRequested):
        make(strategy).fit(
            points(),
            epochs=3,
            validation=points(),
            saver=lenet_tf.Saver(tmp_path, best=None),
            actions=[stop],
        )
    resumed = make(strategy)
    saver = lenet_tf.Saver(tmp_path, best=None)
    history = resumed.fit(points(), epochs=3, validation=points(), saver=saver)
    assert history == expected
    for a, b in zip(state_of(whole), state_of(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    assert resumed.traces == {"train": 1, "evaluate": 1}


def test_the_sharpness_aware_step_is_that_of_numpy() -> None:
    """Two steps on whole batches, against the closed form of a linear model."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=[8, 2])
    y = x @ [1.0, -2.0] + 0.3
    trainer = sharpness_aware(make_strategy(2))
    b, w = (v.numpy().astype(np.float64) for v in trainer.state.trained)
    w = w[:, 0]

    def gradient(w: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, float]:
        error = x @ w + b - y
        return 2 * x.T @ error / 8, 2 * error.mean()

    for _ in range(2):
        gw, gb = gradient(w, b)
        norm = np.sqrt((gw**2).sum() + gb**2)
        gw, gb = gradient(w + RHO * gw / norm, b + RHO * gb / norm)
        w, b = w - 0.1 * gw, b - 0.1 * gb
    arrays = {"point": x.astype(np.float32), "target": y.astype(np.float32)}
    trainer.fit(lenet_tf.Batches(arrays, 8), epochs=2)
    ours = [v.numpy() for v in trainer.state.trained]
    np.testing.assert_allclose(ours[0], b, atol=1e-6)
    np.testing.assert_allclose(ours[1][:, 0], w, atol=1e-6)


def test_a_gan_trains_both_by_their_own_losses() -> None:
    """One step, against gradients by hand in eager TensorFlow."""
    trainer = gan(make_strategy(1))
    twin = Pair()
    arrays = {"point": np.ones([4, 2], np.float32)}
    batch = {
        "point": tf.constant(arrays["point"]),
        "position": tf.range(4),
        "seed": tf.constant([0, 0], tf.int64),
    }
    optimizers = {"critic": Adam(0.01), "generator": Adam(0.02)}
    for name, optimizer in optimizers.items():
        optimizer.build(getattr(twin, name).trainable_variables)
    for name, salt in [*(("critic", salt) for salt in range(5)), ("generator", 5)]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(critic_values(twin, batch, salt)[f"{name}_loss"])
        variables = getattr(twin, name).trainable_variables
        gradients = tape.gradient(loss, variables)
        optimizers[name].apply(gradients, variables, tf.constant(0, tf.int64))
    trainer.fit(lenet_tf.Batches(arrays, 4), epochs=1)
    for ours, theirs in zip(
        trainer.model.trainable_variables, twin.trainable_variables, strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_step_that_is_a_module_has_its_state_in_the_checkpoint(
    tmp_path: pathlib.Path,
) -> None:
    class Counting(tf.Module):
        def __init__(self) -> None:
            super().__init__(name="counting")
            self.calls = tf.Variable(0, trainable=False)

        def __call__(self, state: TrainState, batch: Batch) -> tf.Tensor:
            def compute(part: Batch) -> dict[str, tf.Tensor]:
                return line_forward(state.model, part, True)

            gradients, sums = mean_gradients(compute, batch, state.updates)
            update = state.updates["optimizer"]
            update.apply(gradients["optimizer"], state.updates_done())
            local_assign_add(self.calls, tf.constant(1))
            state.metrics.update(sums)
            return all_finite(sums["loss"])

    strategy = make_strategy(2)
    steps = []
    for epochs in (1, 2):
        with strategy.scope():
            model, step = dense(2, 1, 3, "line"), Counting()
        trainer = lenet_tf.Trainer(
            model, lenet_tf.SGD(0.1), line_forward, strategy=strategy, step=step
        )
        saver = lenet_tf.Saver(tmp_path, best=None)
        trainer.fit(points(), epochs=epochs, saver=saver)
        steps.append(int(step.calls.numpy()))
    assert steps == [7, 14]


def test_a_step_that_accumulates_nothing_is_refused() -> None:
    trainer = lenet_tf.Trainer(
        dense(2, 1, 3, "line"),
        lenet_tf.SGD(0.1),
        line_forward,
        step=lambda state, batch: None,
    )
    with pytest.raises(lenet_tf.UsageError, match=r"state\.metrics\.update"):
        trainer.fit(points(), epochs=1)


def test_copies_that_a_step_lets_differ_are_an_error_in_the_first_epoch() -> None:
    """Noise that each replica draws for itself."""

    def noisy(state: TrainState, batch: Batch) -> tf.Tensor:
        def compute(part: Batch) -> dict[str, tf.Tensor]:
            return line_forward(state.model, part, True)

        gradients, sums = mean_gradients(compute, batch, state.updates)
        (vector,) = gradients["optimizer"].values()
        noise = tf.random.stateless_normal(vector.shape, batch["seed"])
        own = tf.cast(batch["position"][0], tf.float32)  # another on each replica
        update = state.updates["optimizer"]
        update.apply({vector.dtype: vector + own * noise}, state.updates_done())
        state.metrics.update(sums)
        return all_finite(vector)

    for replicas in (1, 2):
        strategy = make_strategy(replicas)
        with strategy.scope():
            model = dense(2, 1, 3, "line")
        trainer = lenet_tf.Trainer(
            model, lenet_tf.SGD(0.1), line_forward, strategy=strategy, step=noisy
        )
        if replicas == 1:
            trainer.fit(points(), epochs=1)
            continue
        with pytest.raises(lenet_tf.UsageError, match="the copies of line/"):
            trainer.fit(points(), epochs=1)


def plain_step(state: TrainState, batch: Batch) -> tf.Tensor:
    """The least that a step does."""

    def compute(part: Batch) -> dict[str, tf.Tensor]:
        return line_forward(state.model, part, True)

    gradients, sums = mean_gradients(compute, batch, state.updates)
    state.updates["optimizer"].apply(gradients["optimizer"], state.updates_done())
    state.metrics.update(sums)
    return all_finite(sums["loss"])


def plain(step: Callable, **options: object) -> lenet_tf.Trainer:
    model = dense(2, 1, 3, "line")
    return lenet_tf.Trainer(
        model, lenet_tf.SGD(0.1), line_forward, step=step, **options
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ema": 0.9}, r"ema is 0\.9, but the step leaves .*state\.average\.update"),
        ({"loss_scaling": True}, r"scale=state\.loss_scale\.value\(\)"),
    ],
)
def test_a_step_that_ignores_what_it_should_use_is_refused(
    options: dict, message: str
) -> None:
    with pytest.raises(lenet_tf.UsageError, match=message):
        plain(plain_step, **options).fit(points(), epochs=1)


@pytest.mark.parametrize("going", [None, 1.0, tf.constant([True])])
def test_a_step_must_say_whether_to_go_on(going: object) -> None:
    def step(state: TrainState, batch: Batch) -> object:
        plain_step(state, batch)
        return going

    with pytest.raises(lenet_tf.UsageError, match="return whether to go on"):
        plain(step).fit(points(), epochs=1)


def test_an_update_clips_in_any_step() -> None:
    own = plain(plain_step, clip_norm=1e-3)
    usual = plain(None, clip_norm=1e-3)
    before = [v.numpy() for v in own.model.trainable_variables]
    for trainer in (own, usual):
        trainer.fit(points(), steps=2)
    change = 0.0
    for v, w, old in zip(
        own.model.variables, usual.model.variables, before, strict=True
    ):
        np.testing.assert_array_equal(v.numpy(), w.numpy())
        change += float(np.sum((v.numpy() - old) ** 2))
    assert 0 < change**0.5 <= 2 * 0.1 * 1e-3 * (1 + 1e-5)
