"""Recipes: named sets of settings.

    config = Config.from_dict(recipe("fast"), seed=3)

Each trains 61,706 parameters. Their accuracy over several seeds is in the docs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lenet_tf.errors import UsageError
from lenet_tf.experiment.declaration import Value

RECIPES: dict[str, Mapping[str, Value]] = {
    # The network and the settings of the paper's usual tutorial.
    "reference": {},
    # The reference network, trained with a rate that rises and falls.
    "fast": {
        "initial": "undo_sigmoid",
        "epochs": 12,
        "learning_rate": 6e-3,
        "schedule": "cosine",
    },
    # The fewest seconds to 99 %.
    "sprint": {
        "activation": "relu",
        "subsampling": "max",
        "epochs": 3,
        "learning_rate": 8e-3,
        "schedule": "cosine",
        "warmup": 0.2,
    },
    # The highest accuracy that these parameters reach in three minutes.
    "best": {
        "activation": "leaky_relu",
        "subsampling": "max",
        "smoothing": 0.05,
        "epochs": 60,
        "learning_rate": 5e-3,
        "schedule": "cosine",
        "ema": 0.999,
        "shift": 1.5,
        "rotate": 12.0,
        "scale": 0.12,
        "shear": 8.0,
    },
}


def recipe(name: str) -> dict[str, Any]:
    """Returns a recipe's settings, with its name as `recipe`.

    Raises:
      UsageError: There is no recipe of that name.
    """
    if name not in RECIPES:
        raise UsageError(f"recipe is {name!r}: choose one of {', '.join(RECIPES)}")
    return {"recipe": name, **RECIPES[name]}
