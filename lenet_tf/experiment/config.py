"""The settings of a run.

    config = Config(epochs=3, batch_size=128)
    config.as_dict()["epochs"]

The defaults are the reference recipe: LeNet-5 with tanh, averages and sigmoids, Adam at
a rate of 1e-3, 40 epochs of batches of 64. Other recipes are in
`lenet_tf.experiment.recipes`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lenet_tf.errors import UsageError
from lenet_tf.experiment.declaration import Value
from lenet_tf.experiment.settings import check, setting, settings_of, without_effect
from lenet_tf.experiment.training_settings import TrainingSettings
from lenet_tf.parallel.strategies import STRATEGIES


@dataclasses.dataclass(frozen=True)
class Config(TrainingSettings):
    """All settings of a training run; the defaults are the reference recipe.

    Each field describes its setting; `python -m lenet_tf train --help` lists them.

    Raises:
      UsageError: A value is of another type or out of its range, or has no effect, such
        as the momentum of an optimizer that has none.
    """

    num_replicas: int | str = setting(
        "auto",
        "Number of GPUs, or of CPU cores where there is no GPU, that share each batch; "
        "auto takes all.",
        group="Devices",
        least=1,
        choices=("auto",),
        free=True,
    )
    strategy: str = setting(
        "auto",
        "How replicas are spread; auto is multi_worker where TF_CONFIG or srun tells "
        "of several workers, and else mirrored.",
        group="Devices",
        choices=STRATEGIES,
        free=True,
    )
    worker_timeout: float = setting(
        60.0,
        "Seconds to wait for the other workers to start.",
        group="Devices",
        above=0,
        most=10**6,
        free=True,
    )
    steps_per_loop: int | None = setting(
        None,
        "Steps in the graph before Python looks for signals and checkpoints that are "
        "due; none is 100, or 500 on GPUs, whose steps are shorter.",
        group="Devices",
        least=1,
        free=True,
    )
    jit_compile: bool | None = setting(
        None,
        "Whether XLA compiles the gradient, which is slower on CPUs, and draws random "
        "numbers of its own; none is on GPUs only.",
        group="Devices",
    )
    save_steps: int | None = setting(
        None,
        "Steps between two checkpoints, to the next end of a loop; the end of each "
        "epoch is saved in any case.",
        group="Run directory",
        least=1,
        free=True,
    )
    save_seconds: float | None = setting(
        60.0,
        "Seconds between two checkpoints, to the next end of a loop.",
        group="Run directory",
        least=0,
        free=True,
    )
    keep: int = setting(
        3,
        "Number of checkpoints that are kept, the latest ones, beside the best.",
        group="Run directory",
        least=1,
        free=True,
    )
    background_save: bool = setting(
        False,
        "Whether training goes on while a checkpoint is written.",
        group="Run directory",
        free=True,
    )

    def __post_init__(self) -> None:
        check(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, object], **given: Value) -> Config:
        """Makes a configuration of JSON values, as `as_dict` gives them.

        Args:
          settings: Values of a recipe or of a config.json. Those that have no effect
            beside the others count as the defaults, and so do settings that are absent.
          **given: Values that override them, and must have an effect.

        Raises:
          UsageError: A setting is unknown, or its value is wrong.
        """
        merged: dict[str, Any] = {**settings, **given}
        unknown = merged.keys() - settings_of(cls).keys()
        if unknown:
            raise UsageError(f"there is no setting {', '.join(sorted(unknown))}")
        idle = without_effect(cls, {**cls().as_dict(), **merged}).keys() - given.keys()
        return cls(**{name: merged[name] for name in merged if name not in idle})

    def free_on_resume(self) -> set[str]:
        """Names the settings that may differ when the run is resumed."""
        free = {name for name, declared in settings_of(Config).items() if declared.free}
        if self.schedule != "constant":  # It is laid out over all epochs.
            free.remove("epochs")
        return free | without_effect(Config, self.as_dict()).keys()

    def as_dict(self) -> dict[str, Value]:
        """Returns the settings as JSON values, in the order above."""
        return dataclasses.asdict(self)
