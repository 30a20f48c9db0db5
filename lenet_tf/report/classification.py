"""Sections about a classifier: confusion, worst mistakes, scores, calibration.

sections = classification_sections(probabilities, labels, images=images)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lenet_tf.errors import UsageError
from lenet_tf.report.charts import reliability
from lenet_tf.report.parts import Matrix, Part, Section, Table, tiles
from lenet_tf.report.scores import calibration, class_scores, confusion_matrix

_MISTAKES = 36
_SPACE = "\N{NO-BREAK SPACE}"
_ROUNDING = 1e-3  # of probabilities in 16 bits
_MOST_IN_MATRIX = 30  # classes; with more, the most frequent confusions are listed


def classification_sections(
    probabilities: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str] | None = None,
    images: np.ndarray | None = None,
) -> list[Section]:
    """Makes the sections of a classifier's report.

    Args:
      probabilities: Probabilities of the classes, float [N, classes].
      labels: Class of each example, integer [N].
      class_names: Name of each class; by default its number.
      images: Images of the examples [N, H, W] or [N, H, W, C], of which the worst
        mistakes are shown; by default these are listed.

    Raises:
      UsageError: The shapes do not fit together, there are no examples, labels are no
        classes, or probabilities are not in [0, 1].
    """
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise UsageError(
            f"probabilities are {probabilities.shape} and labels {labels.shape}: they "
            "must be [N, classes] and [N]"
        )
    if not len(labels):
        raise UsageError("there are no examples: a report needs at least one")
    if labels.dtype.kind not in "iu":
        raise UsageError(f"labels are {labels.dtype}: they must be integers")
    if not ((probabilities >= 0) & (probabilities <= 1 + _ROUNDING)).all():  # or NaN
        raise UsageError(
            f"probabilities are from {probabilities.min()} to {probabilities.max()}: "
            "they must be in [0, 1], as the softmax of logits is"
        )
    if images is not None and len(images) != len(labels):
        raise UsageError(f"there are {len(images)} images for {len(labels)} labels")
    classes = probabilities.shape[1]
    names = list(class_names or map(str, range(classes)))
    if len(names) != classes:
        raise UsageError(f"there are {len(names)} class names for {classes} classes")
    counts = confusion_matrix(labels, probabilities.argmax(axis=1), classes)
    return [
        _confusion(counts, names),
        _mistakes(probabilities, labels, names, images),
        _scores(counts, names),
        _calibration(probabilities, labels),
    ]


def _confusion(counts: np.ndarray, names: Sequence[str]) -> Section:
    errors = counts.copy()
    np.fill_diagonal(errors, 0)
    if len(names) <= _MOST_IN_MATRIX:
        note = "Rows are the classes of the examples, columns what they were taken for."
        return Section("Confusion matrix", [Matrix(names, counts)], note)
    order = np.argsort(-errors, axis=None, kind="stable")[:_MISTAKES]
    rows = [
        (names[row], names[column], errors[row, column])
        for row, column in zip(*np.unravel_index(order, errors.shape), strict=True)
        if errors[row, column]
    ]
    table = Table(["class", "taken for", "examples"], rows)
    return Section("Most frequent confusions", [table])


def _mistakes(
    probabilities: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    images: np.ndarray | None,
) -> Section:
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    truth = probabilities[wrong, labels[wrong]]
    worst = wrong[np.argsort(truth, kind="stable")][:_MISTAKES]
    note = f"{len(wrong):,} of {len(labels):,} examples are mistaken"
    note += (
        f"; these are the {len(worst)} whose own class got the least probability."
        if len(wrong) > len(worst)
        else "."
    )
    if images is None:
        rows = [
            (
                i,
                names[labels[i]],
                f"{probabilities[i, labels[i]]:.1%}",
                names[predicted[i]],
                f"{probabilities[i].max():.1%}",
            )
            for i in worst
        ]
        columns = [
            "example",
            "class",
            "its probability",
            "taken for",
            "its probability",
        ]
        return Section("Worst mistakes", [Table(columns, rows)] if rows else [], note)
    captions = [
        f"{names[labels[i]]}{_SPACE}({probabilities[i, labels[i]]:.0%}) "
        f"as{_SPACE}{names[predicted[i]]}{_SPACE}({probabilities[i].max():.0%})"
        for i in worst
    ]
    parts: list[Part] = []
    if len(worst):
        parts.append(tiles(np.asarray(images)[worst], captions, width=96))
    return Section("Worst mistakes", parts, note)


def _scores(counts: np.ndarray, names: Sequence[str]) -> Section:
    scores = class_scores(counts)
    rows = [
        (
            name,
            int(scores["examples"][i]),
            int(counts[i].sum() - counts[i, i]),
            *(_percent(scores[key][i]) for key in ("precision", "recall", "f1")),
        )
        for i, name in enumerate(names)
    ]
    columns = ["class", "examples", "mistaken", "precision", "recall", "F1"]
    return Section("Classes", [Table(columns, rows)])


def _calibration(probabilities: np.ndarray, labels: np.ndarray) -> Section:
    found = calibration(probabilities, labels)
    note = (
        f"The expected calibration error (ECE, {len(found.counts)} bins) is "
        f"{found.ece:.2%}: so far the probability of the predicted class and the share "
        "that is right differ on average."
    )
    return Section("Calibration", reliability(found), note)


def _percent(share: float) -> str:
    return "–" if np.isnan(share) else f"{share:.2%}"
