"""Scores from sums, against Keras's metrics, closed forms and counting by hand."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import keras
import numpy as np
import pytest
import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.nn.losses import confusion
from lenet_tf.nn.scores import (
    auc,
    auc_error,
    f1,
    iou,
    perplexity,
    pixel_confusion,
    score_histogram,
)


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    """Makes NumPy's warnings errors: of 0 / 0, above all."""
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error", RuntimeWarning)
        yield


def counted(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """The confusion matrix, counted one by one."""
    matrix = np.zeros([classes, classes])
    for label, guess in zip(labels.flat, predicted.flat, strict=True):
        if 0 <= label < classes:
            matrix[label, guess] += 1
    return matrix


def scenes() -> tuple[np.ndarray, np.ndarray]:
    """Logits [5, 6, 7, 4] and labels [5, 6, 7] of which some are 255."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, [5, 6, 7])
    labels[rng.uniform(size=labels.shape) < 0.2] = 255
    return rng.normal(size=[5, 6, 7, 4]).astype(np.float32), labels


def scored(examples: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Scores in (0, 1), and labels that go with them more or less."""
    rng = np.random.default_rng(1)
    positive = rng.uniform(size=examples) < 0.3
    logit = rng.normal(size=examples) + 1.5 * positive
    return (1 / (1 + np.exp(-logit))).astype(np.float32), positive


def exact_auc(score: np.ndarray, positive: np.ndarray) -> float:
    """The share of pairs in order, a tie being half a pair."""
    above = score[positive][:, None] - score[~positive][None, :]
    return float(np.mean((above > 0) + 0.5 * (above == 0)))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_pixels_are_counted_for_each_image_apart(dtype: type) -> None:
    logits, labels = scenes()
    found = pixel_confusion(tf.constant(logits), tf.constant(labels.astype(dtype)))
    predicted = logits.argmax(axis=-1)
    expected = [counted(*pair, 4) for pair in zip(labels, predicted, strict=True)]
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == tf.float32


def test_pixels_of_the_ignored_label_and_of_no_class_are_left_out() -> None:
    logits, labels = scenes()
    found = pixel_confusion(tf.constant(logits), tf.constant(labels), ignored=2)
    masked = np.where(labels == 2, -1, labels)
    expected = counted(masked, logits.argmax(axis=-1), 4)
    np.testing.assert_array_equal(tf.reduce_sum(found, axis=0), expected)


def test_pixel_confusion_of_one_place_is_the_confusion_of_a_classifier() -> None:
    logits = tf.constant(np.random.default_rng(0).normal(size=[9, 3]))
    labels = tf.constant(np.random.default_rng(1).integers(0, 3, 9))
    np.testing.assert_array_equal(
        pixel_confusion(logits, labels), confusion(logits, labels)
    )


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_pixel_confusion_in_a_graph_is_the_same(jit_compile: bool) -> None:
    logits, labels = map(tf.constant, scenes())
    graph = tf.function(pixel_confusion, jit_compile=jit_compile)
    np.testing.assert_array_equal(
        graph(logits, labels, 2), pixel_confusion(logits, labels, 2)
    )


def test_classes_in_place_of_logits_are_given_one_hot() -> None:
    logits, labels = scenes()
    classes = tf.one_hot(logits.argmax(axis=-1), 4)
    np.testing.assert_array_equal(
        pixel_confusion(classes, tf.constant(labels)),
        pixel_confusion(tf.constant(logits), tf.constant(labels)),
    )


def test_logits_that_do_not_fit_the_labels_are_refused() -> None:
    with pytest.raises(UsageError, match=r"\(2, 5\) and logits \(2, 4, 3\)"):
        pixel_confusion(tf.zeros([2, 4, 3]), tf.zeros([2, 5], tf.int32))


@pytest.mark.parametrize("ignored", [None, 2])
def test_iou_is_that_of_keras(ignored: int | None) -> None:
    logits, labels = scenes()
    metric = keras.metrics.MeanIoU(4, sparse_y_pred=False, ignore_class=ignored)
    metric.update_state(labels, logits)
    matrix = np.sum(
        pixel_confusion(tf.constant(logits), tf.constant(labels), ignored), axis=0
    )
    assert iou(matrix) == pytest.approx(float(metric.result()), rel=1e-6)


def test_iou_leaves_out_classes_that_are_neither_there_nor_predicted() -> None:
    matrix = np.zeros([5, 5])
    matrix[:3, :3] = [[6, 2, 0], [1, 5, 0], [0, 4, 0]]
    assert iou(matrix) == pytest.approx((6 / 9 + 5 / 12 + 0) / 3)


@pytest.mark.parametrize("average", ["macro", "micro"])
def test_f1_is_that_of_keras_on_weighted_examples(average: str) -> None:
    rng = np.random.default_rng(2)
    logits, labels = rng.normal(size=[200, 5]), rng.integers(0, 5, 200)
    weight = rng.uniform(0.5, 2, 200)
    metric = keras.metrics.F1Score(average=average)
    metric.update_state(np.eye(5)[labels], logits, sample_weight=weight)
    marks = confusion(tf.constant(logits), tf.constant(labels)).numpy()
    matrix = np.tensordot(weight, marks, axes=1)
    assert f1(matrix, average) == pytest.approx(float(metric.result()), rel=1e-5)


def test_micro_f1_is_the_accuracy() -> None:
    matrix = np.random.default_rng(0).integers(0, 9, [4, 4])
    assert f1(matrix, "micro") == pytest.approx(np.trace(matrix) / matrix.sum())


def test_binary_f1_is_that_of_the_second_class() -> None:
    matrix = np.array([[50, 7], [11, 20]])
    precision, recall = 20 / 27, 20 / 31
    harmonic = 2 / (1 / precision + 1 / recall)
    assert f1(matrix, "binary") == pytest.approx(harmonic)


def test_macro_f1_leaves_out_classes_that_are_neither_there_nor_predicted() -> None:
    matrix = np.zeros([4, 4])
    matrix[0, 0], matrix[1, 0] = 3, 1  # class 1 has labels; 2 and 3 have nothing
    assert f1(matrix) == pytest.approx((6 / 7 + 0) / 2)


@pytest.mark.parametrize("bins", [10, 50, 200])
def test_auc_is_that_of_keras_with_the_same_thresholds(bins: int) -> None:
    score, positive = scored()
    metric = keras.metrics.AUC(num_thresholds=bins + 1)
    metric.update_state(positive, score)
    marks = score_histogram(tf.constant(score), tf.constant(positive), bins)
    assert marks.shape == (1000, 2, bins)
    found = auc(np.sum(marks, axis=0))
    assert found == pytest.approx(float(metric.result()), abs=2e-6)


def test_weighted_auc_is_that_of_keras() -> None:
    score, positive = scored()
    weight = np.random.default_rng(3).uniform(0.5, 2, 1000)
    metric = keras.metrics.AUC(num_thresholds=201)
    metric.update_state(positive, score, sample_weight=weight)
    marks = score_histogram(tf.constant(score), tf.constant(positive)).numpy()
    found = auc(np.tensordot(weight, marks, axes=1))
    assert found == pytest.approx(float(metric.result()), abs=2e-6)


@pytest.mark.parametrize("bins", [1, 2, 5, 20, 1000])
def test_auc_is_the_share_of_pairs_in_order_within_the_error_it_gives(
    bins: int,
) -> None:
    score, positive = scored()
    marks = score_histogram(tf.constant(score), tf.constant(positive), bins)
    histogram = np.sum(marks, axis=0)
    error = auc_error(histogram)
    assert abs(auc(histogram) - exact_auc(score, positive)) <= error
    assert error <= 1.5 / bins


def test_auc_counts_a_tie_as_half_a_pair() -> None:
    score = tf.constant([0.1, 0.3, 0.3, 0.6, 0.6, 0.9])
    positive = tf.constant([0, 0, 1, 1, 0, 1])
    histogram = np.sum(score_histogram(score, positive, bins=10), axis=0)
    assert auc(histogram) == pytest.approx((1.5 + 2.5 + 3) / 9)


def test_the_error_of_auc_is_reached_if_all_bins_are_in_order() -> None:
    score, positive = np.array([0.1, 0.2, 0.6, 0.7]), np.array([0, 1, 0, 1]) > 0
    marks = score_histogram(tf.constant(score), tf.constant(positive), bins=2)
    histogram = np.sum(marks, axis=0)
    assert (auc(histogram), auc_error(histogram)) == (0.5, 0.25)
    assert exact_auc(score, positive) == 0.75


def test_scores_at_and_beyond_the_ends_are_in_the_outer_bins() -> None:
    score = tf.constant([-np.inf, -3.0, -2.0, -1.0, 0.0, 1.999, 2.0, 9.0, np.inf])
    marks = score_histogram(score, tf.ones([9]), bins=4, low=-2, high=2)
    assert marks[:, 1].numpy().argmax(axis=1).tolist() == [0, 0, 0, 1, 2, 3, 3, 3, 3]
    assert not marks[:, 0].numpy().any()


def test_half_precision_scores_keep_their_order() -> None:
    score, positive = scored()
    half = tf.cast(score, tf.bfloat16)
    marks = score_histogram(half, tf.constant(positive), bins=1000)
    rounded = exact_auc(tf.cast(half, tf.float32).numpy(), positive)
    histogram = np.sum(marks, axis=0)
    assert abs(auc(histogram) - rounded) <= auc_error(histogram)


def test_a_score_that_is_nan_makes_the_auc_nan_and_does_not_pass_for_a_number() -> None:
    marks = score_histogram(
        tf.constant([np.nan, 0.2, 0.9]), tf.constant([1, 0, 1]), bins=5
    )
    histogram = np.sum(marks, axis=0)
    assert np.isnan(auc(histogram))
    assert auc(np.sum(marks[1:], axis=0)) == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bins": 0}, "bins is 0"),
        ({"low": 1.0}, "low is 1.0"),
        ({"score": tf.zeros([3, 1])}, r"\(3, 1\)"),
    ],
)
def test_a_histogram_that_cannot_be_is_refused(arguments: dict, message: str) -> None:
    given = {"score": tf.zeros([3]), "positive": tf.zeros([3]), **arguments}
    with pytest.raises(UsageError, match=message):
        score_histogram(**given)


def test_perplexity_of_a_uniform_model_is_the_number_of_words() -> None:
    assert perplexity(np.log(50)) == pytest.approx(50)
    assert perplexity(np.array([300 * np.log(50)]), np.array([300.0])) == (
        pytest.approx(50)
    )


def test_perplexity_is_that_of_keras() -> None:
    rng = np.random.default_rng(4)
    logits, tokens = rng.normal(size=[8, 6, 11]), rng.integers(0, 11, [8, 6])
    there = np.arange(6) < rng.integers(1, 7, 8)[:, None]
    nll = keras.losses.sparse_categorical_crossentropy(tokens, logits, from_logits=True)
    expected = np.exp(np.sum(nll * there) / there.sum())
    sums = np.sum(np.sum(nll * there, axis=1, keepdims=True), axis=0)
    counts = np.sum(np.sum(there, axis=1, keepdims=True), axis=0)
    assert perplexity(sums, counts) == pytest.approx(expected, rel=1e-6)


def test_what_the_data_leave_undefined_is_nan_without_a_warning() -> None:
    nothing, negatives = np.zeros([2, 2]), np.array([[5, 0], [0, 0]])
    assert np.isnan([f1(nothing), f1(nothing, "micro"), iou(nothing)]).all()
    assert np.isnan(f1(negatives, "binary"))
    assert f1(negatives) == iou(negatives) == 1.0
    one_sided = np.array([[3, 4, 5], [0, 0, 0]])
    assert np.isnan([auc(one_sided), auc_error(one_sided)]).all()
    assert np.isnan(perplexity(0.0, 0.0))


def test_perplexity_too_large_for_float64_is_infinite() -> None:
    assert perplexity(1e4) == np.inf


def test_a_score_of_unknown_sums_is_nan() -> None:
    unknown = np.full([2, 2], np.nan)
    scores = [f1(unknown), f1(unknown, "binary"), iou(unknown), auc(unknown)]
    assert np.isnan([*scores, auc_error(unknown), perplexity(np.nan)]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: f1(np.ones([3, 3]), "binary"), "'binary' for 3 classes"),
        (lambda: f1(np.ones([3, 3]), "mean"), "average is 'mean'"),
        (lambda: f1(np.ones([2, 3])), r"shape \(2, 3\)"),
        (lambda: iou(np.ones([4])), r"shape \(4,\)"),
        (lambda: auc(np.ones([3, 5])), r"shape \(3, 5\)"),
    ],
)
def test_sums_of_other_shapes_are_refused(call: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()
