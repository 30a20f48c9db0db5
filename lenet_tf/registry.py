"""Named choices, such as the optimizers, each registered beside its definition.

A package keeps a registry of each kind, and its classes add themselves:

    OPTIMIZERS: Registry[Optimizer] = Registry("optimizer", positional=1)

    @OPTIMIZERS.register("sgd")
    class SGD(Optimizer):
        def __init__(self, learning_rate: float, momentum: float = 0.0) -> None: ...

Settings then select an entry, which gets those that it has a parameter for:

    OPTIMIZERS.parameters("sgd")                              # ("momentum",)
    OPTIMIZERS.make("sgd", 0.1, settings={"momentum": 0.9, "epochs": 3})
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, ParamSpec, TypeVar

from lenet_tf.errors import UsageError

T = TypeVar("T")
P = ParamSpec("P")


class Registry(Generic[T]):
    """Classes or functions by name, each of which makes a `T`.

    Args:
      kind: Word for an entry in error messages, such as "optimizer".
      positional: Number of leading arguments that every entry takes and that are not
        settings, such as 1 for the learning rate of an optimizer.
    """

    def __init__(self, kind: str, positional: int) -> None:
        self.kind, self.positional = kind, positional
        self._entries: dict[str, Callable[..., T]] = {}

    def register(self, name: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
        """Returns a decorator that adds a class or function under a name.

        Raises:
          UsageError: The name belongs to another definition. (The same definition may
            run again, as in a notebook.)
        """

        def add(entry: Callable[P, T]) -> Callable[P, T]:
            present = self._entries.get(name)
            if present is not None and _origin(present) != _origin(entry):
                raise UsageError(
                    f"{self.kind} {name!r} is {_origin(present)} already: register "
                    f"{_origin(entry)} under another name"
                )
            self._entries[name] = entry
            return entry

        return add

    def names(self) -> tuple[str, ...]:
        """Returns the names, in the order of registration."""
        return tuple(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def get(self, name: str) -> Callable[..., T]:
        """Returns the class or function registered under a name.

        Raises:
          UsageError: There is none; the message gives all names and the nearest one.
        """
        if name not in self._entries:
            near = difflib.get_close_matches(str(name), self._entries, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise UsageError(
                f"{self.kind} is {name!r}: choose one of {', '.join(self)}{hint}"
            )
        return self._entries[name]

    def parameters(self, name: str) -> tuple[str, ...]:
        """Returns the names of an entry's parameters after the leading arguments.

        Raises:
          UsageError: There is no such entry.
        """
        arguments = inspect.signature(self.get(name)).parameters.values()
        return tuple(
            argument.name
            for argument in list(arguments)[self.positional :]
            if argument.kind in (argument.POSITIONAL_OR_KEYWORD, argument.KEYWORD_ONLY)
        )

    def make(self, name: str, *args: object, settings: Mapping[str, object]) -> T:
        """Calls an entry with its share of the settings.

        Args:
          name: Name of the entry.
          *args: Leading arguments of the entry.
          settings: Values by name. Names that the entry has no parameter for are
            ignored; None stands for the entry's own default.

        Returns:
          The object that the entry makes.

        Raises:
          UsageError: There is no such entry, or it rejects a value.
        """
        chosen = {
            parameter: settings[parameter]
            for parameter in self.parameters(name)
            if settings.get(parameter) is not None
        }
        return self.get(name)(*args, **chosen)


def _origin(entry: Callable[..., object]) -> str:
    return f"{entry.__module__}.{getattr(entry, '__qualname__', repr(entry))}"
