"""Named sets of hyperparameters.

    config = Config(**recipe("fast"), seed=3)

All have 61,706 parameters. How they do over seeds is in the README.
"""

from __future__ import annotations

from typing import Any

from lenet_tf.errors import UsageError

RECIPES: dict[str, dict[str, Any]] = {
    # The tutorial's program.
    "reference": {},
    # The reference network, trained with a rate that rises and falls.
    "fast": {
        "initial": "undo_sigmoid",
        "epochs": 12,
        "learning_rate": 6e-3,
        "schedule": "cosine",
    },
    # As few seconds as 99 % takes.
    "sprint": {
        "activation": "relu",
        "subsampling": "max",
        "epochs": 3,
        "learning_rate": 8e-3,
        "schedule": "cosine",
        "warmup": 0.2,
    },
    # As good as these parameters get in three minutes.
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
    """Returns a recipe's settings, its name among them.

    Raises:
      UsageError: there is none of that name.
    """
    if name not in RECIPES:
        raise UsageError(f"recipe is {name!r}: choose one of {', '.join(RECIPES)}")
    return {"recipe": name, **RECIPES[name]}
