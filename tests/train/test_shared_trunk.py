"""Two heads on a trunk: actor and critic, and fine-tuning, against eager TensorFlow."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
import tensorflow as tf

import lenet_tf
from lenet_tf.optim import SGD, Adam
from lenet_tf.parallel import make_strategy
from lenet_tf.train import Action, Update, mean_gradients

Batch = Mapping[str, tf.Tensor]
Values = dict[str, tf.Tensor]
EXAMPLES, BATCH_SIZE = 22, 8  # 3 steps an epoch, the last of 6 examples


class TwoHeads(tf.Module):
    """A trunk, and on it a policy of three actions and a value."""

    def __init__(self) -> None:
        super().__init__(name="two_heads")
        self.trunk = lenet_tf.nn.Dense(4, 6, (2, 0), "trunk")
        self.policy = lenet_tf.nn.Dense(6, 3, (2, 1), "policy")
        self.value = lenet_tf.nn.Dense(6, 1, (2, 2), "value")

    def __call__(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        hidden = tf.tanh(self.trunk(x))
        return self.policy(hidden), self.value(hidden)[:, 0]


def actor_critic(model: TwoHeads, batch: Batch, training: bool) -> Values:
    """The losses of advantage actor-critic, per example (Mnih et al., 2016)."""
    logits, value = model(batch["x"])
    advantage = tf.stop_gradient(batch["return"] - value)
    chosen = lenet_tf.softmax_cross_entropy(logits, batch["action"])
    critic_loss = (batch["return"] - value) ** 2
    return {
        "critic_loss": critic_loss,
        "total_loss": advantage * chosen + 0.5 * critic_loss,
    }


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    return {
        "x": rng.normal(size=[EXAMPLES, 4]).astype(np.float32),
        "action": rng.integers(0, 3, [EXAMPLES], np.int32),
        "return": rng.normal(2.0, 1.0, [EXAMPLES]).astype(np.float32),
    }


def batches() -> lenet_tf.Batches:
    return lenet_tf.Batches(arrays(), BATCH_SIZE)


Rule = Callable[[list[np.ndarray]], list[np.ndarray]]  # gradients -> changes


def momentum_rule(rate: float, momentum: float) -> Rule:
    """Sutskever et al., 2013, equations 1 and 2."""
    velocity: list[np.ndarray] = []

    def change(gradient: list[np.ndarray]) -> list[np.ndarray]:
        before = velocity or [np.zeros_like(g) for g in gradient]
        velocity[:] = [
            momentum * u - rate * g for u, g in zip(before, gradient, strict=True)
        ]
        return list(velocity)

    return change


def adam_rule(rate: float) -> Rule:
    """Kingma and Ba, 2015, section 2, with its reordered computation."""
    m: list[np.ndarray] = []
    v: list[np.ndarray] = []
    step = [0]

    def change(gradient: list[np.ndarray]) -> list[np.ndarray]:
        zeros, step[0] = [np.zeros_like(g) for g in gradient], step[0] + 1
        m[:] = [0.9 * a + 0.1 * g for a, g in zip(m or zeros, gradient, strict=True)]
        v[:] = [
            0.999 * a + 0.001 * g**2 for a, g in zip(v or zeros, gradient, strict=True)
        ]
        factor = rate * np.sqrt(1 - 0.999 ** step[0]) / (1 - 0.9 ** step[0])
        return [-factor * a / (np.sqrt(b) + 1e-7) for a, b in zip(m, v, strict=True)]

    return change


@dataclasses.dataclass
class Part:
    """An update by eager gradients and NumPy."""

    modules: Sequence[tf.Module]
    rule: Rule
    loss: str
    clip_norm: float | None = None

    @property
    def variables(self) -> list[tf.Variable]:
        return [v for module in self.modules for v in module.trainable_variables]

    def changes(self, tape: tf.GradientTape, means: Values) -> list[np.ndarray]:
        gradient = tape.gradient(means[self.loss], self.variables)
        if self.clip_norm is not None:
            gradient, norm = tf.clip_by_global_norm(gradient, self.clip_norm)
            assert norm > self.clip_norm  # or the test would not see a clip
        return self.rule([g.numpy().astype(np.float64) for g in gradient])


def train_eagerly(
    model: tf.Module, forward: Callable, parts: Sequence[Part], epochs: int
) -> None:
    """Differentiates all losses at the same weights, then changes these."""
    for _ in range(epochs):
        for first in range(0, EXAMPLES, BATCH_SIZE):
            rows = slice(first, first + BATCH_SIZE)
            batch = {name: tf.constant(a[rows]) for name, a in arrays().items()}
            with tf.GradientTape(persistent=True) as tape:
                values = forward(model, batch, True)
                means = {name: tf.reduce_mean(value) for name, value in values.items()}
            changes = [part.changes(tape, means) for part in parts]
            for part, changed in zip(parts, changes, strict=True):
                for variable, change in zip(part.variables, changed, strict=True):
                    variable.assign_add(change)


def assert_same(ours: tf.Module, theirs: tf.Module) -> None:
    for a, b in zip(ours.variables, theirs.variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=0, atol=3e-6)


class Killed(BaseException):
    """The process ends: nothing is saved any more."""


def kill_at(step: int) -> Action:
    def action(moment: lenet_tf.Moment) -> None:
        if moment.step >= step:
            raise Killed()

    return action


def actor_and_critic(strategy: tf.distribute.Strategy) -> lenet_tf.Trainer:
    """The actor's update has the trunk, which learns from both losses."""
    with strategy.scope():
        model = TwoHeads()
    updates = {
        "actor": Update(
            [model.trunk, model.policy], Adam(0.01), "total_loss", clip_norm=0.05
        ),
        "critic": Update(model.value, SGD(0.1), "critic_loss", clip_norm=0.5),
    }
    return lenet_tf.Trainer(
        model,
        updates,
        actor_critic,
        strategy=strategy,
        steps_per_loop=1,
        watch=["gradient_norm"],
    )


def test_actor_and_critic_learn_each_by_its_loss(
    strategy: tf.distribute.Strategy,
) -> None:
    trainer, twin = actor_and_critic(strategy), TwoHeads()
    parts = [
        Part([twin.trunk, twin.policy], adam_rule(0.01), "total_loss", clip_norm=0.05),
        Part([twin.value], momentum_rule(0.1, 0.0), "critic_loss", clip_norm=0.5),
    ]
    history = trainer.fit(batches(), epochs=3)
    train_eagerly(twin, actor_critic, parts, epochs=3)
    assert_same(trainer.model, twin)
    assert history["critic_loss"][-1] < history["critic_loss"][0]
    assert min(history["actor_gradient_norm"]) > 0.05


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_killed_actor_and_critic_resume_bit_for_bit(
    replicas: int, tmp_path: pathlib.Path
) -> None:
    strategy = make_strategy(replicas)

    def fit(folder: str, *actions: Action) -> tuple:
        trainer = actor_and_critic(strategy)
        saver = lenet_tf.Saver(tmp_path / folder, steps=2, best=None)
        history = trainer.fit(batches(), epochs=3, saver=saver, actions=actions)
        return history, [v.numpy().tobytes() for v in trainer.model.variables]

    with pytest.raises(Killed):
        fit("killed", kill_at(5))
    assert fit("killed") == fit("whole")


def returns(model: TwoHeads, batch: Batch, training: bool) -> Values:
    """A new head's regression; the policy is not used."""
    return {"loss": (model(batch["x"])[1] - batch["return"]) ** 2}


def fine_tune(
    strategy: tf.distribute.Strategy, folder: pathlib.Path, *actions: Action
) -> tuple[TwoHeads, np.ndarray]:
    """Trains the new head alone, then the trunk as well, at a rate of its own."""
    with strategy.scope():
        model = TwoHeads()
    trunk = model.trunk.variables[1].numpy()
    head = {"head": Update(model.value, SGD(0.1, momentum=0.9))}
    options = {"strategy": strategy, "steps_per_loop": 1}
    lenet_tf.Trainer(model, head, returns, **options).fit(
        batches(), epochs=2, saver=lenet_tf.Saver(folder / "head", steps=2, best=None)
    )
    assert model.trunk.variables[1].numpy().tobytes() == trunk.tobytes()
    frozen = model.value.variables[1].numpy()
    rates = {
        "trunk": Update(model.trunk, Adam(0.001)),
        "head": Update(model.value, SGD(0.01, momentum=0.9)),
    }
    lenet_tf.Trainer(model, rates, returns, **options).fit(
        batches(),
        epochs=2,
        saver=lenet_tf.Saver(folder / "all", steps=2, best=None),
        actions=actions,
    )
    return model, frozen


def test_a_new_head_is_trained_first_and_then_the_trunk_more_slowly(
    strategy: tf.distribute.Strategy, tmp_path: pathlib.Path
) -> None:
    twin = TwoHeads()
    head = [Part([twin.value], momentum_rule(0.1, 0.9), "loss")]
    train_eagerly(twin, returns, head, epochs=2)
    alone = twin.value.variables[1].numpy()
    parts = [
        Part([twin.trunk], adam_rule(0.001), "loss"),
        Part([twin.value], momentum_rule(0.01, 0.9), "loss"),
    ]
    train_eagerly(twin, returns, parts, epochs=2)
    model, frozen = fine_tune(strategy, tmp_path)
    np.testing.assert_allclose(frozen, alone, rtol=0, atol=3e-6)
    assert_same(model, twin)


def test_killed_fine_tuning_started_again_goes_on_where_it_was(
    tmp_path: pathlib.Path,
) -> None:
    strategy = make_strategy(2)
    with pytest.raises(Killed):
        fine_tune(strategy, tmp_path / "killed", kill_at(3))
    resumed, _ = fine_tune(strategy, tmp_path / "killed")
    whole, _ = fine_tune(strategy, tmp_path / "whole")
    for ours, theirs in zip(resumed.variables, whole.variables, strict=True):
        assert ours.numpy().tobytes() == theirs.numpy().tobytes()


def test_updates_of_one_loss_share_its_backward_pass() -> None:
    """A rate for each layer costs no more gradients than one rate."""

    def products(updates: Callable[[TwoHeads], dict[str, Update]]) -> int:
        model = TwoHeads()
        each = updates(model)
        batch = {name: tf.constant(a) for name, a in arrays().items()}
        batch["weight"] = tf.ones([EXAMPLES])

        def compute(part: Batch) -> Values:
            return actor_critic(model, part, True)

        function = tf.function(
            lambda: mean_gradients(compute, batch, each), autograph=False
        )
        operations = function.get_concrete_function().graph.get_operations()
        return sum(op.type == "MatMul" for op in operations)

    def update(*target: tf.Module) -> Update:
        return Update(target, SGD(0.1), "total_loss")

    together = products(lambda m: {"all": update(m)})
    apart = products(
        lambda m: {v.name: update(v) for v in (m.trunk, m.policy, m.value)}
    )
    assert apart == together


def test_modules_that_share_a_variable_may_be_in_one_update() -> None:
    model = TwoHeads()
    model.tied = tf.Module(name="tied")
    model.tied.head = model.policy
    update = Update([model.policy, model.tied, model.trunk], SGD(0.1))
    assert len(update.variables) == 4
