"""LeNet-5 against the equivalent Keras program, from the same weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from reference import keras_lenet

import lenet_tf
from lenet_tf.data.batches import Batches
from lenet_tf.nn.images import standardize
from lenet_tf.nn.layers import Subsample
from lenet_tf.nn.losses import classification

SHAPES = [
    (5, 5, 1, 6),
    (6,),
    (5, 5, 6, 16),
    (16,),
    (5, 5, 16, 120),
    (120,),
    (120, 84),
    (84,),
    (84, 10),
    (10,),
]


def keras_twin(model: lenet_tf.LeNet5) -> keras.Model:
    """The reference network of Keras's own layers, with the weights of `model`."""
    twin = keras_lenet()
    twin.set_weights([v.numpy() for v in model.trainable_variables])
    return twin


@pytest.fixture
def images(digits: dict[str, np.ndarray]) -> tf.Tensor:
    return standardize(tf.constant(digits["image"]))


def test_has_61706_parameters_in_ten_variables_in_order() -> None:
    model = lenet_tf.LeNet5()
    assert [tuple(v.shape) for v in model.trainable_variables] == SHAPES
    assert sum(np.prod(s) for s in SHAPES) == 61_706
    assert {id(v) for v in model.variables} == {
        id(v) for v in model.trainable_variables
    }


def test_equal_seeds_give_equal_weights_and_others_do_not() -> None:
    one, same, other = (lenet_tf.LeNet5(seed=s) for s in (1, 1, 2))
    for a, b, c in zip(
        *(m.trainable_variables for m in (one, same, other)), strict=True
    ):
        np.testing.assert_array_equal(a, b)
        if a.shape.rank > 1:
            assert np.abs(a - c).max() > 0.01
        else:
            np.testing.assert_array_equal(a, np.zeros(a.shape))


def test_no_two_layers_start_from_the_same_numbers() -> None:
    model = lenet_tf.LeNet5(kernel="two_3x3")
    starts = [float(tf.reshape(v, [-1])[0]) for v in model.trainable_variables[::2]]
    assert len(set(starts)) == len(starts) == 8


def test_logits_and_probabilities_are_those_of_keras(images: tf.Tensor) -> None:
    model = lenet_tf.LeNet5(seed=3)
    logits = keras_twin(model)(images)
    np.testing.assert_allclose(model(images), logits, rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        model.predict(images), tf.nn.softmax(logits), rtol=0, atol=1e-6
    )


def test_every_gradient_is_that_of_keras(
    images: tf.Tensor, digits: dict[str, np.ndarray]
) -> None:
    model = lenet_tf.LeNet5(seed=3)
    twin = keras_twin(model)
    with tf.GradientTape() as tape:
        values = classification(model, digits, True)
        loss = tf.reduce_mean(values["loss"])
    with tf.GradientTape() as twin_tape:
        twin_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(
            digits["label"], twin(images)
        )
    assert float(loss) == pytest.approx(float(twin_loss), abs=1e-6)
    for ours, theirs in zip(
        tape.gradient(loss, model.trainable_variables),
        twin_tape.gradient(twin_loss, twin.trainable_variables),
        strict=True,
    ):
        largest = np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * largest)


@pytest.mark.parametrize(
    ("ours", "theirs", "tolerance"),
    [
        (lenet_tf.SGD(0.1, 0.9), keras.optimizers.SGD(0.1, 0.9), 1e-5),
        (lenet_tf.Adam(1e-3), keras.optimizers.Adam(1e-3), 1e-4),
    ],
    ids=["sgd", "adam"],
)
def test_weights_after_20_steps_are_those_of_keras(
    images: tf.Tensor,
    digits: dict[str, np.ndarray],
    ours: lenet_tf.optim.Optimizer,
    theirs: keras.optimizers.Optimizer,
    tolerance: float,
) -> None:
    model = lenet_tf.LeNet5(seed=3)
    twin = keras_twin(model)
    # 103 examples in batches of 32: the last batch of each of the 5 epochs is ragged.
    lenet_tf.Trainer(model, ours).fit(Batches(digits, 32), epochs=5)
    twin.compile(theirs, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    twin.fit(images, digits["label"], 32, epochs=5, shuffle=False, verbose=0)
    assert int(theirs.iterations) == 20
    for a, b in zip(model.trainable_variables, twin.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


@pytest.mark.parametrize("activation", ["tanh", "relu", "leaky_relu"])
@pytest.mark.parametrize("subsampling", ["average_sigmoid", "average", "max"])
@pytest.mark.parametrize("kernel", ["5x5", "two_3x3"])
def test_every_variant_learns_and_takes_other_classes_and_channels(
    activation: str, subsampling: str, kernel: str
) -> None:
    model = lenet_tf.LeNet5(
        7, 3, activation=activation, subsampling=subsampling, kernel=kernel
    )
    rng = np.random.default_rng(0)
    data = {
        "image": rng.random([16, 32, 32, 3], np.float32),
        "label": rng.integers(0, 7, [16], np.int32),
    }
    assert model(data["image"]).shape == [16, 7]
    history = lenet_tf.Trainer(model, lenet_tf.Adam(3e-3)).fit(
        Batches(data, 16), epochs=12
    )
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.parametrize(
    "options",
    [
        {"activation": "swish"},
        {"subsampling": "median"},
        {"kernel": "7x7"},
        {"num_classes": 1},
        {"channels": 0},
        {"dropout": 1.5},
    ],
    ids=str,
)
def test_unknown_options_are_refused_with_the_choices(options: dict) -> None:
    with pytest.raises(lenet_tf.UsageError, match=r"choose one of|at least|must be in"):
        lenet_tf.LeNet5(**options)


def test_images_of_another_shape_are_refused_with_both_shapes() -> None:
    with pytest.raises(
        lenet_tf.UsageError, match=r"\(2, 28, 28, 1\).*\[batch, 32, 32, 1\]"
    ):
        lenet_tf.LeNet5()(tf.zeros([2, 28, 28, 1]))


def test_undoing_the_sigmoid_makes_the_start_that_of_plain_averages() -> None:
    """For small maps, where a sigmoid is a line."""
    undone = lenet_tf.LeNet5(initial="undo_sigmoid", seed=3)
    plain = lenet_tf.LeNet5(subsampling="average", seed=3)
    for model in (undone, plain):
        for layer in (model.c1, model.c3):
            conv = layer.convs[0]
            conv.w.assign(conv.w * 0.1)
            conv.b.assign(conv.b * 0.1)
    images = tf.random.stateless_uniform([8, 32, 32, 1], [1, 2])
    maps = [m.c5(m.s4(m.c3(m.s2(m.c1(images))))) for m in (undone, plain)]
    largest = np.abs(maps[1]).max()
    np.testing.assert_allclose(maps[0], maps[1], rtol=0, atol=0.02 * largest)


def test_a_layer_after_a_sigmoid_starts_from_four_times_glorots_weights() -> None:
    undone, plain = lenet_tf.LeNet5(initial="undo_sigmoid"), lenet_tf.LeNet5()
    for name in ("c3", "c5"):
        ours, glorot = (getattr(model, name).convs[0] for model in (undone, plain))
        np.testing.assert_array_equal(ours.w, 4 * glorot.w)
        halves = -tf.reduce_sum(ours.w, axis=[0, 1, 2]) / 2
        np.testing.assert_array_equal(ours.b, halves)
    np.testing.assert_array_equal(undone.c1.convs[0].w, plain.c1.convs[0].w)
    assert not undone.c1.convs[0].b.numpy().any()


def test_a_subclass_of_a_layer_is_called_as_it_is() -> None:
    class Silent(Subsample):
        def __call__(self, x: tf.Tensor) -> tf.Tensor:
            return tf.zeros_like(super().__call__(x))

    model = lenet_tf.LeNet5()
    model.s4 = Silent("average")
    images = tf.random.stateless_uniform([4, 32, 32, 1], [1, 2])
    logits = model(images).numpy()
    np.testing.assert_array_equal(logits, np.repeat(logits[:1], 4, axis=0))


def test_there_must_be_a_sigmoid_to_undo() -> None:
    with pytest.raises(lenet_tf.UsageError, match="choose average_sigmoid"):
        lenet_tf.LeNet5(initial="undo_sigmoid", subsampling="max")
