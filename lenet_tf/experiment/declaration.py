"""What is declared about one setting: its type, default, help, range and choices.

momentum = settings_of(Config)["momentum"]      # a Setting
momentum.parse("0.5")                           # 0.5, as from a flag
momentum.convert(2)                             # UsageError: it must be below 1
"""

from __future__ import annotations

import contextlib
import dataclasses
import numbers
import os
import pathlib
import types
from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np

from lenet_tf.errors import UsageError

Number = TypeVar("Number", int, float)
Value = str | int | float | bool | None

_LARGEST, _SMALLEST = float(np.finfo("f4").max), float(np.finfo("f4").tiny)
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What a field declares about a setting; see `setting`."""

    name: str
    types: tuple[type, ...]
    default: Value
    help: str
    group: str
    least: float | None
    above: float | None
    most: float | None
    below: float | None
    choices: Iterable[str]
    rule: Callable[[str], object] | None
    free: bool

    @property
    def optional(self) -> bool:
        """Whether the value may be None, which is `none` in a flag."""
        return types.NoneType in self.types

    def parse(self, text: str) -> Value:
        """Reads the value from the text of a flag.

        Raises:
          UsageError: The text is no value of this setting.
        """
        value: object = text
        if self.optional and text == "none":
            value = None
        elif bool in self.types:
            value = _BOOLEANS.get(text.lower(), text)
        elif int in self.types or float in self.types:
            # What is no number stays text, which is refused unless it is a choice.
            with contextlib.suppress(ValueError):
                value = int(text) if int in self.types else float(text)
        return self.convert(value)

    def convert(self, value: object) -> Value:
        """Returns a value in the setting's type.

        Args:
          value: Value of that type, or of one that can stand for it: an integer for a
            float, a NumPy number, a path for text, digits where text or a number may
            be given.

        Raises:
          UsageError: The value is of another type, out of range, or no choice.
        """
        if value is None and self.optional:
            return None
        if isinstance(value, bool):
            if bool in self.types:
                return value
        elif isinstance(value, (str, os.PathLike)) and str in self.types:
            text = os.fspath(value)
            if int not in self.types or not text.isdecimal():
                return self._checked_text(text)
            value = int(text)
        if isinstance(value, bool | str):
            raise self._wrong(value)
        if isinstance(value, numbers.Integral) and int in self.types:
            return self._checked_number(int(value))
        if isinstance(value, numbers.Real) and float in self.types:
            try:
                return self._checked_number(float(value))
            except OverflowError:
                raise self._wrong(value, "it does not fit into a float32") from None
        raise self._wrong(value)

    def _checked_text(self, text: str) -> str:
        choices = tuple(self.choices)
        if choices and text not in choices:
            raise self._wrong(text)
        if not text.isprintable():  # Bytes that are not UTF-8 are not, either.
            raise self._wrong(text, "it must be printable text in UTF-8")
        if self.rule is not None:
            try:
                self.rule(text)
            except UsageError:
                raise
            except ValueError as error:
                raise self._wrong(text, f"it must be {error}") from error
        return text

    def _checked_number(self, number: Number) -> Number:
        if isinstance(number, int):
            if not -(2**31) <= number < 2**31:
                raise self._wrong(number, "it must be a whole number of 32 bits")
        elif not abs(number) <= _LARGEST:  # A comparison with NaN is false.
            raise self._wrong(number)
        elif 0 < abs(number) < _SMALLEST:
            raise self._wrong(number, "it is 0 in float32")
        inside = (
            (self.least is None or number >= self.least)
            and (self.above is None or number > self.above)
            and (self.most is None or number <= self.most)
            and (self.below is None or number < self.below)
        )
        if not inside:
            raise self._wrong(number)
        return number

    def values(self) -> str:
        """Describes the values that the setting takes, such as "a number above 0"."""
        choices = tuple(self.choices)
        if choices and self.types == (str,):
            return f"one of {', '.join(choices)}"
        kinds = [t for t in self.types if t in _KINDS and not (t is str and choices)]
        bounds = [
            f"{word} {bound:g}"
            for word, bound in (
                ("at least", self.least),
                ("above", self.above),
                ("at most", self.most),
                ("below", self.below),
            )
            if bound is not None
        ]
        described = " or ".join(_KINDS[kind] for kind in kinds)
        if bounds:
            described += f" {' and '.join(bounds)}".replace(" at least", " of at least")
        others = [*choices, *["none"] * self.optional]
        return f"{described}, or {' or '.join(others)}" if others else described

    def _wrong(self, value: object, what: str = "") -> UsageError:
        shown = repr(value)
        if len(shown) > 80:
            shown = f"{shown[:77]}..."
        if not what:
            values = self.values()
            one_of = values.startswith("one of ")
            what = f"choose {values}" if one_of else f"it must be {values}"
        return UsageError(f"{self.name} is {shown}: {what}")


def local_path(text: str) -> pathlib.Path:
    """Reads the path of a file or directory of this machine; `~` is the home.

    Raises:
      ValueError: The text is no such path; says what it must be.
    """
    if not text or "://" in text:
        raise ValueError("a path on this machine")
    try:
        path = pathlib.Path(text).expanduser()
    except RuntimeError:  # ~nobody
        raise ValueError("a path below the home of a user that exists") from None
    if len(os.fsencode(path)) >= 4096 or any(
        len(os.fsencode(p)) > 255 for p in path.parts
    ):
        raise ValueError("a path of less than 4,096 bytes, in names of less than 256")
    return path
