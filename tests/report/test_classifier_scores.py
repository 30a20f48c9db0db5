"""Scores of a classifier against figures by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lenet_tf.errors import UsageError
from lenet_tf.report import calibration, class_scores, confusion_matrix


def test_confusion_counts_each_example_once() -> None:
    counts = confusion_matrix(np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 2, 0]), 3)
    np.testing.assert_array_equal(counts, [[1, 1, 0], [0, 1, 0], [1, 0, 1]])
    assert confusion_matrix(np.array([], int), np.array([], int), 2).sum() == 0
    with pytest.raises(UsageError, match="from 0 to 3: they must be 0 to 2"):
        confusion_matrix(np.array([0]), np.array([3]), 3)


def test_scores_are_those_of_the_definitions() -> None:
    scores = class_scores(np.array([[8, 2, 0], [1, 9, 0], [0, 0, 0]]))
    np.testing.assert_array_equal(scores["examples"], [10, 10, 0])
    np.testing.assert_allclose(scores["precision"][:2], [8 / 9, 9 / 11])
    np.testing.assert_allclose(scores["recall"][:2], [0.8, 0.9])
    p, r = scores["precision"][0], scores["recall"][0]
    np.testing.assert_allclose(scores["f1"][0], 2 * p * r / (p + r))
    assert np.isnan([scores[key][2] for key in ("precision", "recall", "f1")]).all()


def test_calibration_is_the_weighted_gap_of_its_bins() -> None:
    # Two bins: three examples at 0.9 of which two are right, one at 0.6 that is right.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.4, 0.6]])
    found = calibration(probabilities, np.array([0, 1, 1, 1]), bins=5)
    np.testing.assert_array_equal(found.counts, [0, 0, 1, 0, 3])
    np.testing.assert_allclose(found.ece, (3 * abs(2 / 3 - 0.9) + 1 * 0.4) / 4)
    np.testing.assert_allclose(found.accuracy[[2, 4]], [1, 2 / 3])
    np.testing.assert_allclose(found.confidence[[2, 4]], [0.6, 0.9])


def test_true_probabilities_have_almost_no_error() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, 100_000)
    labels = (rng.random(100_000) > p).astype(int)
    assert calibration(np.stack([p, 1 - p], 1), labels).ece < 0.006
    sure = np.stack([np.ones_like(p), np.zeros_like(p)], 1)
    np.testing.assert_allclose(calibration(sure, labels).ece, labels.mean())
