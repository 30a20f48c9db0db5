"""Settings: declared once, checked wherever they come from."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import numpy as np
import pytest

import lenet_tf
from lenet_tf.experiment.config import Config
from lenet_tf.experiment.recipes import RECIPES, recipe
from lenet_tf.experiment.settings import markdown_table, settings_of
from lenet_tf.optim import OPTIMIZERS, Optimizer

GOLDEN = pathlib.Path(__file__).parent / "golden" / "run" / "config.json"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "a whole number of at least 1$"),
        ({"batch_size": 10**20}, "a whole number of 32 bits"),
        ({"batch_size": 64.0}, "a whole number"),
        ({"batch_size": True}, "a whole number"),
        ({"batch_size": "64"}, "a whole number"),
        ({"batch_size": None}, "a whole number"),
        ({"seed": 2**31}, "a whole number of 32 bits"),
        ({"learning_rate": 0}, "a number above 0"),
        ({"learning_rate": float("nan")}, "a number above 0"),
        ({"learning_rate": float("inf")}, "a number above 0"),
        ({"learning_rate": 10**400}, "does not fit into a float32"),
        ({"learning_rate": 1e-300}, "it is 0 in float32"),
        ({"learning_rate": "fast"}, "a number above 0"),
        ({"ema": 2}, "above 0 and below 1, or none"),
        ({"dropout": 1.5}, "of at least 0 and below 1$"),
        ({"shift": 1e38}, "at most 16"),
        ({"scale": 1e30}, "at most 4"),
        ({"shear": 90}, "at most 60"),
        ({"milestones": "0.2,0.2", "schedule": "piecewise"}, r"such as 0\.5,0\.75"),
        ({"decay": 1e300, "schedule": "piecewise"}, "decay is"),
        ({"num_replicas": 0}, "a whole number of at least 1, or auto"),
        ({"num_replicas": "two"}, "a whole number of at least 1, or auto"),
        ({"num_replicas": None}, "a whole number of at least 1, or auto"),
        ({"jit_compile": "yes"}, "true or false, or none"),
        ({"background_save": 1}, "true or false"),
        ({"optimizer": "adagrad"}, "choose one of adam, adamw"),
        ({"activation": 3}, "choose one of tanh"),
        ({"recipe": "slow"}, "choose one of reference, fast"),
        ({"dataset": ""}, "the name of a TFDS dataset"),
        ({"dataset": "mnïst"}, "the name of a TFDS dataset"),
        ({"dataset": "\udcff"}, "UTF-8"),
        ({"data_dir": "gs://bucket/data"}, "a path on this machine"),
        ({"data_dir": "~nosuch/x"}, "a user that exists"),
        ({"data_dir": "x" * 300}, "names of less than 256"),
        ({"data_dir": "x/" * 2500}, "less than 4,096 bytes"),
        ({"data_dir": 3}, "text, or none"),
    ],
    ids=str,
)
def test_a_wrong_value_is_named_with_what_would_be_right(
    settings: dict[str, object], message: str
) -> None:
    (name,) = [name for name in settings if name != "schedule"]
    for make in (Config.from_dict, lambda s: Config(**s)):
        with pytest.raises(lenet_tf.UsageError, match=message) as error:
            make(settings)
        text = str(error.value)
        assert text.startswith(f"{name} is ")
        assert "\n" not in text
        assert len(text) < 250


def test_a_long_value_is_not_echoed_whole() -> None:
    with pytest.raises(lenet_tf.UsageError) as error:
        Config(optimizer="x" * 10**6)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"num_replicas": 2}, 2),
        ({"num_replicas": "2"}, 2),
        ({"num_replicas": "auto"}, "auto"),
        ({"shift": 3}, 3.0),
        ({"learning_rate": np.float32(0.5)}, 0.5),
        ({"epochs": np.int64(3)}, 3),
        ({"data_dir": pathlib.Path("/data")}, "/data"),
        ({"save_seconds": None}, None),
        ({"jit_compile": False}, False),
    ],
    ids=str,
)
def test_what_python_takes_reads_back_from_json(
    given: dict[str, object], kept: object
) -> None:
    config = Config(**given)
    (name,) = given
    value = getattr(config, name)
    assert value == kept
    assert type(value) is type(kept)
    assert Config.from_dict(json.loads(json.dumps(config.as_dict()))) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"weight_decay": 0.1},
            "weight_decay is 0.1, but adam does not use it: choose optimizer adamw or "
            "lamb or lion or muon, or leave weight_decay out",
        ),
        (
            {"optimizer": "adamw", "momentum": 0.5},
            "momentum is 0.5, but adamw does not use it: choose optimizer muon or sgd, "
            "or leave momentum out",
        ),
        (
            {"warmup": 0.2},
            "warmup is 0.2, but constant does not use it: choose schedule cosine or "
            "one_cycle, or leave warmup out",
        ),
        (
            {"schedule": "exponential", "milestones": "0.5"},
            "milestones is '0.5', but exponential does not use it: choose schedule "
            "piecewise, or leave milestones out",
        ),
    ],
    ids=str,
)
def test_a_setting_without_effect_is_refused(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(lenet_tf.UsageError) as error:
        Config(**settings)
    assert str(error.value) == message


def test_read_settings_without_effect_count_as_the_default() -> None:
    golden = json.loads(GOLDEN.read_text())
    assert (golden["optimizer"], golden["weight_decay"]) == ("adam", 0.0)
    config = Config.from_dict(golden)
    assert config.weight_decay == Config().weight_decay
    assert config.num_replicas == 2
    assert "weight_decay" in config.free_on_resume()
    decaying = Config.from_dict({**golden, "optimizer": "adamw"})
    assert decaying.weight_decay == 0.0
    assert "weight_decay" not in decaying.free_on_resume()


def test_given_values_override_a_recipe_and_drop_what_they_make_idle() -> None:
    sprint = recipe("sprint")
    assert sprint["warmup"] == 0.2
    constant = Config.from_dict(sprint, schedule="constant")
    assert (constant.warmup, constant.learning_rate) == (0.1, 8e-3)
    with pytest.raises(lenet_tf.UsageError, match=r"warmup is 0\.3, but constant"):
        Config.from_dict(sprint, schedule="constant", warmup=0.3)
    assert Config.from_dict(sprint, warmup=0.3).warmup == 0.3


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(lenet_tf.UsageError, match="no setting tempo, turbo"):
        Config.from_dict({"turbo": True, "tempo": 3})


def test_epochs_may_change_on_resume_unless_the_schedule_depends_on_them() -> None:
    assert "epochs" in Config().free_on_resume()
    assert "epochs" not in Config(schedule="cosine").free_on_resume()
    fixed = {"seed", "batch_size", "dataset", "deterministic"}
    assert not fixed & Config().free_on_resume()


@pytest.mark.parametrize(
    ("optimizer", "taken"),
    [
        ("lion", {"weight_decay"}),
        ("lamb", {"weight_decay"}),
        ("muon", {"weight_decay", "momentum"}),
        ("rmsprop", set()),
    ],
)
def test_an_optimizer_takes_its_own_settings_and_no_others(
    optimizer: str, taken: set[str]
) -> None:
    values = {"weight_decay": 0.5, "momentum": 0.5, "nesterov": True}
    for name, value in values.items():
        settings = {"optimizer": optimizer, name: value}
        if name in taken:
            made = OPTIMIZERS.make(optimizer, 0.1, settings=settings)
            assert getattr(made, name) == getattr(Config(**settings), name) == value
        else:
            with pytest.raises(lenet_tf.UsageError, match=f"{optimizer} does not use"):
                Config(**settings)


def test_every_setting_says_something_and_is_in_the_table() -> None:
    table = markdown_table(Config)
    for name, declared in settings_of(Config).items():
        assert len(declared.help.split()) >= 5, name
        assert declared.help[0].isupper(), name
        assert declared.help.endswith("."), name
        (row,) = [s for s in table.splitlines() if s.startswith(f"| `{name}` |")]
        assert declared.help in row
        assert row.count(" | ") == 3


def test_a_setting_is_read_from_text_as_it_is_declared() -> None:
    settings = settings_of(Config)
    assert settings["epochs"].parse("3") == 3
    assert settings["ema"].parse("0.5") == 0.5
    assert settings["ema"].parse("none") is None
    assert settings["num_replicas"].parse("4") == 4
    assert settings["num_replicas"].parse("auto") == "auto"
    assert settings["background_save"].parse("true") is True
    for name, text in (("epochs", "1.5"), ("keep", "none"), ("background_save", "on")):
        with pytest.raises(lenet_tf.UsageError, match=f"^{name} is '{text}': it must"):
            settings[name].parse(text)


def test_a_registered_optimizer_is_a_choice_at_once() -> None:
    @OPTIMIZERS.register("config_test")
    class Mine(Optimizer):
        def __init__(self, learning_rate: float, momentum: float = 0.5) -> None:
            super().__init__(learning_rate, "mine")

    try:
        assert Config(optimizer="config_test", momentum=0.3).momentum == 0.3
        with pytest.raises(lenet_tf.UsageError, match="sgd or config_test"):
            Config(momentum=0.3)
    finally:
        del OPTIMIZERS._entries["config_test"]


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_recipe_changes_something_in_each_of_its_settings(name: str) -> None:
    config = dataclasses.asdict(Config(**recipe(name)))
    defaults = Config().as_dict()
    assert all(config[k] == v != defaults[k] for k, v in RECIPES[name].items())
