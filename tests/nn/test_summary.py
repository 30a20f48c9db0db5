"""Behaviour of lenet_tf.nn.summary."""

from __future__ import annotations

import pytest
import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.nn import fast_ops
from lenet_tf.nn.layers import Dense, Subsample
from lenet_tf.nn.lenet import Convolution, LeNet5
from lenet_tf.nn.summaries import summary


def rows(text: str) -> list[list[str]]:
    """The layers of a table: name, type, output shape and parameters of each."""
    rule = next(line for line in text.splitlines() if set(line) == {"-"})
    body = text.split(rule)[2].strip("\n")
    cells = [line.split("  ") for line in body.splitlines()]
    return [[cell.strip() for cell in line if cell.strip()] for line in cells]


def totals(text: str) -> list[str]:
    """The lines below the table."""
    return text.splitlines()[-3:]


class Network(tf.Module):
    """A user's own model, with a layer that is used twice and a weight of its own."""

    def __init__(self) -> None:
        super().__init__(name="mine")
        # Not in the order of the calls.
        self.head = Dense(4, 3, (0, 1), name="head")
        self.body = Dense(4, 4, (0, 2), name="body")
        self.scale = tf.Variable([2.0])
        self.seen = tf.Variable(0.0, trainable=False)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Maps [B, 4] to [B, 3]."""
        return self.scale * self.head(self.body(self.body(x)))


class Failing(tf.Module):
    """Calls a layer with what it cannot take."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Subsample("max")
        self.layer = Dense(4, 4, (0, 2))

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Fails in the layer."""
        return self.layer(tf.zeros([1, 5]))


def test_lenet5_has_the_layers_shapes_and_parameters_of_the_paper() -> None:
    text = summary(LeNet5(), [32, 32, 1])
    assert rows(text) == [
        ["c1 (Convolution)", "(None, 28, 28, 6)", "156"],
        ["s2 (Subsample)", "(None, 14, 14, 6)", "0"],
        ["c3 (Convolution)", "(None, 10, 10, 16)", "2,416"],
        ["s4 (Subsample)", "(None, 5, 5, 16)", "0"],
        ["c5 (Convolution)", "(None, 1, 1, 120)", "48,120"],
        ["f6 (Dense)", "(None, 84)", "10,164"],
        ["output (Dense)", "(None, 10)", "850"],
    ]
    assert totals(text) == [
        "Total params: 61,706",
        "Trainable params: 61,706",
        "Non-trainable params: 0",
    ]


def test_a_variant_of_lenet5_has_its_own_numbers() -> None:
    text = summary(LeNet5(3, 2, kernel="two_3x3"), [32, 32, 2])
    first = (3 * 3 * 2 * 6 + 6) + (3 * 3 * 6 * 6 + 6)
    assert rows(text)[0] == ["c1 (Convolution)", "(None, 28, 28, 6)", str(first)]
    assert rows(text)[-1] == ["output (Dense)", "(None, 3)", str(84 * 3 + 3)]


def test_columns_are_aligned_and_headed() -> None:
    lines = summary(LeNet5(), [32, 32, 1]).splitlines()
    assert lines[0] == "Model: lenet5"
    table = lines[1:-3]
    assert table[1].split("  ")[0] == "Layer (type)"
    assert len({len(line) for line in table}) == 1
    assert all(len(line) <= 88 for line in table)


def test_layers_of_a_users_model_come_in_the_order_of_its_calls() -> None:
    names = [row[0] for row in rows(summary(Network(), [4]))]
    assert names == ["body (Dense)", "body (Dense)", "head (Dense)"]


def test_parameters_of_a_layer_that_is_used_twice_count_once() -> None:
    counts = [row[2] for row in rows(summary(Network(), [4]))]
    assert counts == ["20", "0", "15"]


def test_total_has_the_models_own_variables_and_those_that_are_not_trained() -> None:
    assert totals(summary(Network(), [4])) == [
        "Total params: 37",
        "Trainable params: 36",
        "Non-trainable params: 1",
    ]


def test_a_table_changes_no_variable() -> None:
    model = Network()
    before = [variable.numpy() for variable in model.variables]
    summary(model, [4])
    for variable, value in zip(model.variables, before, strict=True):
        assert (variable.numpy() == value).all()


class Watching(tf.Module):
    """Notes in its call what the classes of its layer and of others are."""

    def __init__(self, seen: list[object]) -> None:
        super().__init__()
        self.layer, self.seen = Dense(4, 4, (0, 2)), seen

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Calls the layer."""
        self.seen.append(
            (Dense.__call__, fast_ops.fast(), isinstance(self.layer, Dense))
        )
        return self.layer(x)


def test_layer_classes_and_fast_forms_are_left_alone_meanwhile() -> None:
    seen: list[object] = []
    before = Dense.__call__, fast_ops.fast(), True
    summary(Watching(seen), [4])
    assert seen == [before]


def test_layers_have_their_own_class_again_afterwards() -> None:
    model = LeNet5()
    summary(model, [32, 32, 1])
    assert type(model.c1) is Convolution
    assert type(model.s2) is Subsample
    assert type(model.f6) is Dense
    assert model.trainable_variables


def test_layers_have_their_own_class_again_after_an_error() -> None:
    model = Failing()
    with pytest.raises(tf.errors.InvalidArgumentError):
        summary(model, [2, 2, 1])
    assert type(model.first) is Subsample
    assert type(model.layer) is Dense


def test_an_input_shape_that_does_not_fit_is_told_by_the_model() -> None:
    with pytest.raises(UsageError, match=r"\(1, 28, 28, 1\): LeNet5 takes"):
        summary(LeNet5(), [28, 28, 1])


def test_layers_in_lists_and_subclasses_of_layers_count_once() -> None:
    class Scaled(Dense):
        def __call__(self, x: tf.Tensor) -> tf.Tensor:
            return 2 * super().__call__(x)

    class Inherits(Dense):
        pass

    class Net(tf.Module):
        def __init__(self) -> None:
            super().__init__(name="net")
            self.layers = [Dense(3, 4, (0, 0), "a"), Scaled(4, 5, (0, 1), "b")]
            self.last = Inherits(5, 2, (0, 2), "c")

        def __call__(self, x: tf.Tensor) -> tf.Tensor:
            for layer in self.layers:
                x = layer(x)
            return self.last(x)

    lines = summary(Net(), [3]).splitlines()
    rows = [line.split()[0] for line in lines if "(None" in line]
    assert rows == ["a", "b", "c"]
