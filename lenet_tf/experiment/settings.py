"""Settings that are declared once, each in a field of a dataclass.

    @dataclasses.dataclass(frozen=True)
    class Config:
        momentum: float = setting(
            0.9, "Share of the velocity kept.", group="Optimizer", least=0, below=1
        )

        def __post_init__(self) -> None:
            check(self)

The type, the default, the help, the range and the choices of a setting are read from
its field by whoever needs them: the constructor, the flags, the JSON file, the docs.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeVar, cast

from lenet_tf.errors import UsageError
from lenet_tf.experiment.declaration import Setting, Value
from lenet_tf.registry import Registry

T = TypeVar("T")


def setting(
    default: T,
    help: str,
    *,
    group: str,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    choices: Iterable[str] = (),
    rule: Callable[[str], object] | None = None,
    free: bool = False,
) -> T:
    """Declares a setting, as a field of a dataclass.

    The field's annotation is its type: str, int, float or bool, or a union of these
    and None. Integers have 32 bits and floats fit into float32.

    Args:
      default: Default value.
      help: Description for `--help` and the docs, one or more sentences.
      group: Heading under which the setting is listed.
      least: Smallest value.
      above: Bound that the value must be above.
      most: Largest value.
      below: Bound that the value must be below.
      choices: Texts that are allowed; a registry gives its names. When its entries take
        settings of their own, the others are refused while it is chosen.
      rule: Function of a text that raises UsageError, or ValueError with what the text
        must be.
      free: Whether the value may change when a run is resumed.
    """
    declared = {key: value for key, value in locals().items() if key != "default"}
    return dataclasses.field(default=default, metadata=declared)


def settings_of(cls: type) -> Mapping[str, Setting]:
    """Returns name -> declaration of all settings of a dataclass, in their order."""
    hints = typing.get_type_hints(cls)
    return types.MappingProxyType(
        {
            field.name: Setting(
                name=field.name,
                types=typing.get_args(hints[field.name]) or (hints[field.name],),
                default=cast(Value, field.default),
                **field.metadata,
            )
            for field in dataclasses.fields(cls)
        }
    )


def check(config: object) -> None:
    """Checks the values of a frozen dataclass of settings, at the end of its creation.

    Numbers are brought to the type of their field.

    Raises:
      UsageError: A value is wrong, or has no effect beside the others.
    """
    settings = settings_of(type(config))
    for name, declared in settings.items():
        object.__setattr__(config, name, declared.convert(getattr(config, name)))
    values = {name: getattr(config, name) for name in settings}
    for name, (chosen, users) in without_effect(type(config), values).items():
        if values[name] != settings[name].default:
            raise UsageError(
                f"{name} is {values[name]!r}, but {values[chosen]} does not use it: "
                f"choose {chosen} {' or '.join(users)}, or leave {name} out"
            )


def without_effect(
    cls: type, values: Mapping[str, object]
) -> dict[str, tuple[str, Collection[str]]]:
    """Finds settings that the chosen entry of a registry does not take.

    Args:
      cls: Dataclass of settings.
      values: Setting name -> value.

    Returns:
      Name of a setting without effect -> the setting that chooses the entry, and the
      entries that would take it.
    """
    found: dict[str, tuple[str, Collection[str]]] = {}
    settings = settings_of(cls)
    for chosen, declared in settings.items():
        registry = declared.choices
        if not isinstance(registry, Registry):
            continue
        taken = {entry: registry.parameters(entry) for entry in registry}
        if values.get(chosen) not in taken:
            continue
        for name in settings.keys() - set(taken[str(values[chosen])]):
            if users := [entry for entry in taken if name in taken[entry]]:
                found[name] = chosen, users
    return found


def markdown_table(cls: type) -> str:
    """Lists all settings of a dataclass in Markdown, a table for each group."""
    groups: dict[str, list[str]] = {}
    for name, declared in settings_of(cls).items():
        default = _as_flag(declared.default)
        cells = (f"`{name}`", f"`{default}`", declared.values(), declared.help)
        row = " | ".join(cell.replace("|", r"\|") for cell in cells)
        groups.setdefault(declared.group, []).append(f"| {row} |")
    head = ["| Setting | Default | Values | Meaning |", "| --- | --- | --- | --- |"]
    tables = (
        "\n".join([f"### {title}", "", *head, *rows]) for title, rows in groups.items()
    )
    return "\n\n".join(tables) + "\n"


def _as_flag(value: Value) -> str:
    """Returns a value as a flag takes it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(value)
