"""Sections about a regression: predictions against targets, errors, the worst examples.

sections = regression_sections(predictions, targets)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lenet_tf.errors import UsageError
from lenet_tf.report.charts import histogram, scatter
from lenet_tf.report.parts import Section, Table

_WORST = 20


def regression_sections(
    predictions: np.ndarray, targets: np.ndarray, names: Sequence[str] | None = None
) -> list[Section]:
    """Makes the sections of a regression's report.

    Args:
      predictions: Predicted numbers, float [N] or [N, outputs].
      targets: True numbers, of the same shape.
      names: Name of each output; by default its number.

    Raises:
      UsageError: The shapes do not fit together, there are no examples, or a number is
        not finite.
    """
    predictions, targets = np.asarray(predictions), np.asarray(targets)
    if predictions.shape != targets.shape or predictions.ndim not in (1, 2):
        raise UsageError(
            f"predictions are {predictions.shape} and targets {targets.shape}: both "
            "must be [N] or [N, outputs]"
        )
    if not predictions.size:
        raise UsageError("there are no examples: a report needs at least one")
    if not (np.isfinite(predictions).all() and np.isfinite(targets).all()):
        raise UsageError("predictions or targets are not finite: leave these out")
    count = 1 if predictions.ndim == 1 else predictions.shape[1]
    names = names or ([""] if count == 1 else [str(i) for i in range(count)])
    if len(names) != count:
        raise UsageError(f"there are {len(names)} names for {count} outputs")
    columns = zip(
        names,
        predictions.reshape(-1, count).T.astype(np.float64),
        targets.reshape(-1, count).T.astype(np.float64),
        strict=True,
    )
    return [_section(*column) for column in columns]


def _section(name: str, predicted: np.ndarray, targets: np.ndarray) -> Section:
    errors = predicted - targets
    variance = float(np.var(targets))
    explained = 1 - float(np.mean(errors**2)) / variance if variance else float("nan")
    scores = [
        ("root mean square error", float(np.sqrt(np.mean(errors**2)))),
        ("mean absolute error", float(np.mean(np.abs(errors)))),
        ("mean error", float(np.mean(errors))),
        ("R² (share of the variance that is explained)", explained),
    ]
    worst = np.argsort(-np.abs(errors), kind="stable")[:_WORST]
    rows = [(int(i), float(targets[i]), float(predicted[i])) for i in worst]
    return Section(
        f"Predictions of {name}" if name else "Predictions",
        [
            Table(["score", "value"], scores),
            scatter("Prediction by target", targets, predicted, "target"),
            histogram("Number of examples", errors, "prediction − target"),
            Table(["example", "target", "prediction"], rows, "Largest errors"),
        ],
    )
