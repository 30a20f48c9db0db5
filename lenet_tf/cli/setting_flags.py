"""One flag for each setting of a dataclass, made from its declaration.

define(Config)                    # --epochs, --batch_size ...
given(Config)                     # {"epochs": 3} after `train --epochs=3`
"""

from __future__ import annotations

from absl import flags

from lenet_tf.cli import program
from lenet_tf.errors import UsageError
from lenet_tf.experiment.declaration import Setting, Value
from lenet_tf.experiment.settings import settings_of


class _Parser(flags.ArgumentParser[Value]):
    def __init__(self, declared: Setting) -> None:
        self._declared = declared

    def parse(self, argument: Value) -> Value:
        if not isinstance(argument, str):  # a default
            return argument
        try:
            return self._declared.parse(argument)
        except UsageError as error:
            raise flags.Error(str(error)) from error


def define(cls: type, *names: str) -> None:
    """Defines the flags of a dataclass of settings, by group.

    Args:
      cls: Dataclass of settings.
      *names: Settings to define flags for; without names, all of them.
    """
    settings = settings_of(cls)
    for name in names or settings:
        declared = settings[name]
        with program.group(declared.group):
            flags.DEFINE_flag(
                flags.Flag(
                    _Parser(declared),
                    None,
                    name,
                    declared.default,
                    _help(declared),
                    boolean=bool in declared.types,
                )
            )


def _help(declared: Setting) -> str:
    values = declared.values()
    if values.startswith("text"):
        return declared.help
    return f"{declared.help} {values[0].upper()}{values[1:]}."


def given(cls: type) -> dict[str, Value]:
    """Returns setting -> value of the flags that were given."""
    defined = {
        name: flags.FLAGS[name] for name in settings_of(cls) if name in flags.FLAGS
    }
    return {name: flag.value for name, flag in defined.items() if flag.present}
