"""The experiment in lenet_tf; see problem.py."""

from __future__ import annotations

from collections.abc import Mapping

import problem
import tensorflow as tf

import lenet_tf
from lenet_tf.nn import BatchNorm, Dense

options = problem.parse()
train, held_out = problem.examples(options)
start = problem.initial_weights()
strategy = lenet_tf.make_strategy(options.replicas)


class Network(tf.Module):
    """[B, 8] -> [B]."""

    def __init__(self) -> None:
        super().__init__(name="network")
        inputs, units = start["w1"].shape
        self.hidden = Dense(inputs, units, seed=(0, 0), name="hidden")
        self.norm = None
        if options.batch_norm:
            self.norm = BatchNorm(units, problem.BATCH_NORM_MOMENTUM, problem.EPSILON)
        self.output = Dense(units, 1, seed=(0, 1), name="output")
        self.hidden.w.assign(start["w1"])
        self.output.w.assign(start["w2"])

    def __call__(self, batch: Mapping[str, tf.Tensor], training: bool) -> tf.Tensor:
        """Predicts y of each example."""
        hidden = self.hidden(batch["x"])
        if self.norm is not None:
            hidden = self.norm(hidden, batch, training)
        hidden = tf.nn.relu(hidden)
        if training:
            hidden = lenet_tf.dropout(batch, hidden, options.dropout, salt=1)
        return self.output(hidden)[:, 0]


def forward(
    model: Network, batch: Mapping[str, tf.Tensor], training: bool
) -> Mapping[str, tf.Tensor]:
    """Returns the squared error of each example."""
    return {"loss": (model(batch, training) - batch["y"]) ** 2}


with strategy.scope():
    model = Network()
optimizer = lenet_tf.SGD(problem.LEARNING_RATE, problem.MOMENTUM)
trainer = lenet_tf.Trainer(
    model, optimizer, forward, strategy=strategy, steps_per_loop=1
)
seed = 0 if options.shuffle else None
test = lenet_tf.Batches(held_out, options.batch_size)
history = trainer.fit(
    lenet_tf.Batches(train, options.batch_size, seed=seed),
    epochs=options.epochs,
    validation=test,
    saver=lenet_tf.Saver(options.directory / "run", steps=options.save_every),
    actions=[lambda moment: problem.kill_if_due(options, moment.step)],
    progress=False,
)
weights = {
    "w1": model.hidden.w.numpy(),
    "b1": model.hidden.b.numpy(),
    "w2": model.output.w.numpy(),
    "b2": model.output.b.numpy(),
}
if model.norm is not None:
    weights["gamma"] = model.norm.gamma.numpy()
    weights["beta"] = model.norm.beta.numpy()
    weights["mean"] = model.norm.moving_mean.numpy()
    weights["variance"] = model.norm.moving_variance.numpy()
problem.finish(
    options,
    weights,
    trainer.evaluate(test),
    [{"epoch": i + 1, "loss": loss} for i, loss in enumerate(history["loss"])],
)
