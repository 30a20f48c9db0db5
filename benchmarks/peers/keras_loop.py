"""The experiment as TensorFlow's guides write a training loop; see problem.py.

The step, the loss and the metrics are those of "Custom training with
tf.distribute.Strategy"; the counters in the checkpoint are those of "Custom training
loop with Keras and MultiWorkerMirroredStrategy"; the history is appended to a file, as
Keras's CSVLogger(append=True) does.
"""

from __future__ import annotations

import csv

import keras
import problem
import tensorflow as tf

options = problem.parse()
train, held_out = problem.examples(options)
start = problem.initial_weights()

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * options.replicas
)
strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(options.replicas)])
keras.utils.set_random_seed(0)

dataset = tf.data.Dataset.from_tensor_slices((train["x"], train["y"]))
if options.shuffle:
    dataset = dataset.shuffle(options.examples)
dataset = dataset.batch(options.batch_size)
steps_per_epoch = len(dataset)
distributed = strategy.experimental_distribute_dataset(dataset)
test = strategy.experimental_distribute_dataset(
    tf.data.Dataset.from_tensor_slices((held_out["x"], held_out["y"])).batch(
        options.batch_size
    )
)

with strategy.scope():
    norm = keras.layers.BatchNormalization(
        momentum=problem.BATCH_NORM_MOMENTUM,
        epsilon=problem.EPSILON,
        synchronized=True,
    )
    model = keras.Sequential(
        [
            keras.layers.Input([problem.FEATURES]),
            keras.layers.Dense(problem.HIDDEN),
            *([norm] if options.batch_norm else []),
            keras.layers.ReLU(),
            keras.layers.Dropout(options.dropout),
            keras.layers.Dense(1),
        ]
    )
    normal = ["gamma", "beta", "mean", "variance"] if options.batch_norm else []
    names = ["w1", "b1", *normal, "w2", "b2"]
    model.set_weights([start[name] for name in names])
    optimizer = keras.optimizers.SGD(problem.LEARNING_RATE, problem.MOMENTUM)
    optimizer.build(model.trainable_variables)
    squared_error = keras.losses.MeanSquaredError(reduction=None)
    train_loss, test_loss = keras.metrics.Mean(), keras.metrics.Mean()
    epoch = tf.Variable(0, dtype=tf.int64)
    step_in_epoch = tf.Variable(0, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(
        model=model,
        optimizer=optimizer,
        epoch=epoch,
        step_in_epoch=step_in_epoch,
    )
manager = tf.train.CheckpointManager(checkpoint, options.directory / "run", 3)


def train_step(inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
    """Makes one step of one replica; returns its part of the loss."""
    x, y = inputs
    with tf.GradientTape() as tape:
        per_example = squared_error(y[:, None], model(x, training=True))
        loss = tf.nn.compute_average_loss(per_example)
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    train_loss.update_state(per_example)
    return loss


@tf.function
def distributed_train_step(inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
    """Makes one step of all replicas; returns the loss."""
    losses = strategy.run(train_step, args=(inputs,))
    return strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)


@tf.function
def distributed_test_step(inputs: tuple[tf.Tensor, tf.Tensor]) -> None:
    """Adds a batch to the test loss."""

    def test_step(x: tf.Tensor, y: tf.Tensor) -> None:
        test_loss.update_state(squared_error(y[:, None], model(x, training=False)))

    strategy.run(test_step, args=inputs)


manager.restore_or_initialize()
while epoch.numpy() < options.epochs:
    iterator = iter(distributed)
    while step_in_epoch.numpy() < steps_per_epoch:
        distributed_train_step(next(iterator))
        step_in_epoch.assign_add(1)
        step = int(epoch.numpy() * steps_per_epoch + step_in_epoch.numpy())
        if options.save_every and step % options.save_every == 0:
            manager.save()
        problem.kill_if_due(options, step)
    test_loss.reset_state()
    for batch in test:
        distributed_test_step(batch)
    with (options.directory / "history.csv").open("a") as file:
        csv.writer(file).writerow([epoch.numpy() + 1, float(train_loss.result())])
    train_loss.reset_state()
    epoch.assign_add(1)
    step_in_epoch.assign(0)
    manager.save()

with (options.directory / "history.csv").open() as file:
    rows = [{"epoch": int(e), "loss": float(loss)} for e, loss in csv.reader(file)]
problem.finish(
    options,
    dict(zip(names, model.get_weights(), strict=True)),
    {"loss": float(test_loss.result()), "examples": float(test_loss.count.numpy())},
    rows,
)
