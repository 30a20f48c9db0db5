"""Metrics that are computed from other metrics: F1, AUC, perplexity.

    derived = Derived({"f1": lambda values: f1(values["confusion"])})
    derived.of({"loss": 0.3, "confusion": matrix})       # {"f1": 0.93}

The mean of the F1 scores of batches is not the F1 score of the data. So a function gets
the averages and sums over *all* examples, and is called once per row or evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from lenet_tf.errors import UsageError
from lenet_tf.train.metrics import Accumulators

# Metric name -> mean (a float) of scalars, sum (a float64 array) of arrays.
MetricValues: TypeAlias = Mapping[str, float | np.ndarray]
Score: TypeAlias = Callable[[MetricValues], float]


class _Missing(Exception):  # noqa: N818 - found and handled here
    """A function has asked for a metric that does not exist."""


class _Reader(dict[str, float | np.ndarray]):
    def __missing__(self, key: str) -> float:
        raise _Missing(key)


class Derived:
    """Functions of a run's metrics.

    Args:
      functions: Name -> function that takes the metrics by name and returns a number.
        A metric that is one number per example is a mean (float); one that has more
        axes is a sum (float64 array). A function is left out where a metric that it
        reads is not computed, such as one that `forward` returns in evaluation only.
    """

    def __init__(self, functions: Mapping[str, Score]) -> None:
        for name, function in functions.items():
            if not callable(function):
                raise UsageError(
                    f"derived has {function!r} as {name!r}: give a function of the "
                    "metrics, as in {'perplexity': lambda v: math.exp(v['loss'])}"
                )
        self._functions = dict(functions)

    def of(self, values: MetricValues) -> dict[str, float]:
        """Returns name -> value of each function whose metrics are all in `values`."""
        results = {}
        for name, function in self._functions.items():
            try:
                results[name] = float(function(_Reader(values)))
            except _Missing:
                continue
        return results

    def names(self, *metrics: Accumulators) -> list[list[str]]:
        """Finds out which functions can be computed from which metrics.

        Each function is called on made-up values, so that a wrong name is noticed
        before the first step and not after an epoch.

        Args:
          *metrics: Metrics of training and of each evaluation.

        Returns:
          For each of `metrics`, the names of its scalar metrics and of the functions.

        Raises:
          UsageError: A function reads what none of `metrics` has, does not return a
            number, or has the name of a metric.
        """
        found = [list(each.names) for each in metrics]
        for name, function in self._functions.items():
            absent = set()
            for each, names in zip(metrics, found, strict=True):
                if name in each.totals:
                    raise UsageError(f"derived has {name!r}, which is a metric already")
                missing = _missing(name, function, each)
                if missing is None:
                    names.append(name)
                else:
                    absent.add(missing)
            if not any(name in names for names in found):
                known = ", ".join(dict.fromkeys(k for m in metrics for k in m.totals))
                raise UsageError(
                    f"derived {name!r} reads {', '.join(map(repr, sorted(absent)))}, "
                    f"but the metrics are {known}"
                )
        return found


def _missing(name: str, function: Score, metrics: Accumulators) -> str | None:
    """Returns the name of a missing metric that a function reads, or None."""
    values: dict[str, float | np.ndarray] = {
        key: np.ones(total.shape.as_list()) if total.shape.rank else 1.0
        for key, total in metrics.totals.items()
    }
    try:
        with np.errstate(all="ignore"):
            result = function(_Reader(values))
    except _Missing as missing:
        return str(missing)
    except UsageError:
        raise  # such as a wrong argument of a score
    except (ArithmeticError, ValueError):
        return None  # the made-up values may be impossible in real data
    try:
        float(result)
    except (TypeError, ValueError):
        what = f"a {type(result).__name__} of shape {np.shape(result)}"
        raise UsageError(
            f"derived {name!r} returns {what}: it must return one number"
        ) from None
    return None
