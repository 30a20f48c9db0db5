"""Scores of a classifier from its answers.

counts = confusion_matrix(labels, predicted, 10)
class_scores(counts)["f1"]               # float64 [10]
calibration(probabilities, labels).ece
"""

from __future__ import annotations

import dataclasses

import numpy as np

from lenet_tf.errors import UsageError


def confusion_matrix(
    labels: np.ndarray, predicted: np.ndarray, classes: int
) -> np.ndarray:
    """Counts examples by class and predicted class.

    Args:
      labels: Class of each example, integer [N].
      predicted: Class that each was taken for, integer [N].
      classes: Number of classes.

    Returns:
      int64 [classes, classes]; rows are the classes, columns the predicted ones.

    Raises:
      UsageError: A class is below 0, or not below `classes`.
    """
    both = np.stack([labels, predicted])
    if both.size and not (both.min() >= 0 and both.max() < classes):
        raise UsageError(
            f"there are classes from {both.min()} to {both.max()}: they must be 0 to "
            f"{classes - 1}"
        )
    counts = np.zeros([classes, classes], np.int64)
    np.add.at(counts, (both[0], both[1]), 1)
    return counts


def class_scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Computes scores of each class.

    Args:
      counts: Confusion matrix [classes, classes], as from `confusion_matrix`.

    Returns:
      `examples`, int64, and `precision`, `recall` and `f1`, float64 [classes]; NaN for
      a class of which there are no examples, or that was never predicted.
    """
    right = np.diag(counts).astype(np.float64)
    examples, predicted = counts.sum(axis=1), counts.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return {
            "examples": examples,
            "precision": right / predicted,
            "recall": right / examples,
            "f1": 2 * right / (examples + predicted),
        }


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How far a classifier's probabilities are true.

    Attributes:
      ece: Expected calibration error, in [0, 1].
      edges: Edges of the bins, float64 [bins + 1].
      counts: Number of examples whose largest probability is in each bin [bins].
      confidence: Mean of these probabilities [bins]; NaN where there are none.
      accuracy: Share of these examples that are right [bins]; NaN where there are none.
    """

    ece: float
    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def calibration(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = 15
) -> Calibration:
    """Compares the probability of the predicted class with the share that is right.

    The expected calibration error is the mean difference of the two over the bins,
    weighted by their examples: Guo, Pleiss, Sun and Weinberger, "On calibration of
    modern neural networks", ICML 2017, equation 3.

    Args:
      probabilities: Probabilities of the classes, float [N, classes].
      labels: Class of each example, integer [N].
      bins: Number of bins of the same width.
    """
    confidence = np.asarray(probabilities, np.float64).max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, confidence, bins) / counts
        accuracy = np.bincount(place, right, bins) / counts
    gaps = np.nan_to_num(np.abs(accuracy - mean))
    ece = float((gaps * counts).sum() / max(len(labels), 1))
    return Calibration(ece, edges, counts, mean, accuracy)
