"""Registries, and what is registered."""

from __future__ import annotations

import pytest

from lenet_tf.errors import UsageError
from lenet_tf.nn import ACTIVATIONS
from lenet_tf.optim import OPTIMIZERS, SCHEDULES
from lenet_tf.registry import Registry


@pytest.fixture
def shapes() -> Registry[str]:
    registry: Registry[str] = Registry("shape", positional=1)

    @registry.register("square")
    def square(size: int, colour: str = "red") -> str:
        return f"{colour} square of {size}"

    @registry.register("circle")
    def circle(size: int = 3, *, filled: bool = False) -> str:
        return f"{'filled' if filled else 'empty'} circle of {size}"

    return registry


def test_names_come_in_the_order_of_registration(shapes: Registry[str]) -> None:
    assert shapes.names() == tuple(shapes) == ("square", "circle")
    assert "circle" in shapes and "cube" not in shapes


def test_an_entry_gets_its_own_settings_and_no_others(shapes: Registry[str]) -> None:
    settings = {"colour": "blue", "filled": True, "size": 9, "epochs": 3}
    assert shapes.make("square", 1, settings=settings) == "blue square of 1"
    assert shapes.make("circle", 2, settings=settings) == "filled circle of 2"


def test_a_setting_of_none_or_absent_leaves_the_default(shapes: Registry[str]) -> None:
    assert shapes.make("square", 1, settings={"colour": None}) == "red square of 1"
    assert shapes.make("square", 1, settings={}) == "red square of 1"


def test_leading_arguments_are_no_settings_even_with_a_default(
    shapes: Registry[str],
) -> None:
    assert shapes.parameters("square") == ("colour",)
    assert shapes.parameters("circle") == ("filled",)


def test_an_unknown_name_is_refused_with_the_choices_and_the_nearest(
    shapes: Registry[str],
) -> None:
    expected = "shape is 'sqare': choose one of square, circle .did you mean square"
    for use in (shapes.get, shapes.parameters):
        with pytest.raises(UsageError, match=expected):
            use("sqare")
    with pytest.raises(UsageError, match=expected):
        shapes.make("sqare", 1, settings={})
    with pytest.raises(UsageError, match=r"choose one of square, circle$"):
        shapes.get("xyz")


def test_a_second_definition_of_a_name_is_refused(shapes: Registry[str]) -> None:
    def other(size: int) -> str:
        return str(size)

    with pytest.raises(UsageError, match="under another name"):
        shapes.register("square")(other)


def test_the_same_definition_can_be_run_again_as_in_a_notebook() -> None:
    registry: Registry[int] = Registry("number", positional=0)
    for result in (1, 2):

        @registry.register("one")
        def one(result: int = result) -> int:
            return result

    assert registry.make("one", settings={}) == 2


def test_optimizers_schedules_and_activations_are_registered() -> None:
    assert {name: OPTIMIZERS.parameters(name) for name in ("adam", "adamw", "sgd")} == {
        "adam": ("beta_1", "beta_2", "epsilon"),
        "adamw": ("weight_decay", "beta_1", "beta_2", "epsilon"),
        "sgd": ("momentum", "nesterov"),
    }
    assert {name: SCHEDULES.parameters(name) for name in SCHEDULES} == {
        "constant": (),
        "cosine": ("warmup",),
        "one_cycle": ("warmup",),
        "piecewise": ("decay", "milestones"),
        "exponential": ("decay",),
        "polynomial": (),
    }
    assert ACTIVATIONS.names() == ("tanh", "relu", "leaky_relu")
