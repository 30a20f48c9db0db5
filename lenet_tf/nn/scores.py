"""Scores that are computed from sums over all examples: F1, IoU, AUC, perplexity.

    def forward(model, batch, training):
        logits = model(batch["x"])
        return {
            "loss": softmax_cross_entropy(logits, batch["label"]),
            "confusion": confusion(logits, batch["label"]),  # [B, C, C]
        }

    derived = {"f1": lambda values: f1(values["confusion"])}
    trainer = Trainer(model, Adam(1e-3), forward, derived=derived)

The mean of the F1 scores of batches is not the F1 score of the data. So there are two
kinds of functions here: TensorFlow functions that return an array for each example,
which the trainer sums, and NumPy functions that compute a score from the sum. A score
that is undefined for the data, such as 0 / 0, is NaN.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from lenet_tf.errors import UsageError


def pixel_confusion(
    logits: tf.Tensor, labels: tf.Tensor, ignored: int | None = None
) -> tf.Tensor:
    """Counts an example's pixels in the cells of a confusion matrix.

    It is for the pixels of images [B, H, W], the tokens of sequences [B, T], or any
    other places that have a label each. If the model predicts classes instead of
    logits, give `tf.one_hot(classes, C)`.

    Args:
      logits: Logits, float [B, ..., C].
      labels: Labels, integer [B, ...]. Places whose label is not in [0, C), such as 255
        for "unlabelled", are not counted.
      ignored: Label whose places are not counted either.

    Returns:
      float32 [B, C, C], the number of places at [label, predicted class]. Sums over a
      batch are exact up to 2**24 places.

    Raises:
      UsageError: The shapes do not match.
    """
    if not labels.shape.is_compatible_with(logits.shape[:-1]):
        raise UsageError(
            f"labels have shape {labels.shape} and logits {logits.shape}: logits must "
            "have one more axis, that of the classes"
        )
    examples, classes = tf.shape(labels)[0], logits.shape[-1]
    predicted = tf.argmax(logits, axis=-1, output_type=tf.int32)
    predicted = tf.reshape(predicted, [examples, -1])
    labels = tf.reshape(tf.cast(labels, tf.int32), [examples, -1])
    counted = (labels >= 0) & (labels < classes)
    if ignored is not None:
        counted &= labels != ignored
    cells = (tf.range(examples)[:, None] * classes + labels) * classes + predicted
    counts = tf.math.unsorted_segment_sum(
        tf.ones_like(cells, tf.float32),
        tf.where(counted, cells, -1),  # a negative index is left out
        examples * classes**2,
    )
    return tf.reshape(counts, [examples, classes, classes])


def score_histogram(
    score: tf.Tensor,
    positive: tf.Tensor,
    bins: int = 200,
    low: float = 0.0,
    high: float = 1.0,
) -> tf.Tensor:
    """Marks the bin of each example's score, separately for negatives and positives.

    Args:
      score: Scores, float [B], such as probabilities: a higher score means that the
        example is more likely positive. For logits give `low` and `high`, such as -10
        and 10.
      positive: Whether the examples are positive, bool or number [B]; 0 is negative.
      bins: Number of bins of equal width.
      low: Lower end of the first bin. Scores below it are counted in the first bin.
      high: Upper end of the last bin. Scores above it are counted in the last bin.

    Returns:
      float32 [B, 2, bins], 1 at [0, bin] of a negative and [1, bin] of a positive
      example, else 0; all NaN where the score is NaN. `auc` is computed from its sum.

    Raises:
      UsageError: There is no bin, `low` is not below `high`, or the shapes are not [B].
    """
    if bins < 1 or not low < high:
        raise UsageError(
            f"bins is {bins}, low is {low}, high is {high}: give 1 bin or more, and "
            "low below high"
        )
    if score.shape.rank != 1 or positive.shape.rank != 1:
        raise UsageError(
            f"score has shape {score.shape} and positive {positive.shape}: both must "
            "be [B]"
        )
    score = tf.cast(score, tf.float32)
    share = tf.clip_by_value((score - low) / (high - low), 0, 1)
    place = tf.minimum(tf.cast(share * bins, tf.int32), bins - 1)
    rows = tf.one_hot(tf.cast(tf.cast(positive, tf.bool), tf.int32), 2)
    marks = rows[:, :, None] * tf.one_hot(place, bins)[:, None, :]
    return tf.where(tf.math.is_nan(score)[:, None, None], float("nan"), marks)


def f1(matrix: np.ndarray, average: str = "macro") -> float:
    """Computes the F1 score, 2 * hits / (labels + predictions), from counts.

    Args:
      matrix: Confusion matrix [C, C], at [label, predicted class]; see `confusion`.
      average: "macro": the mean of the classes' scores, without classes that have
        neither labels nor predictions, as in scikit-learn (Keras counts them as 0).
        "micro": hits, labels and predictions are added up over the classes first.
        "binary": the score of class 1 of two.

    Returns:
      The score, in [0, 1]; NaN if it is 0 / 0.

    Raises:
      UsageError: `average` is unknown, or the matrix has the wrong shape.
    """
    hits, labels, predictions = _counts(matrix)
    if average == "macro":
        return _mean_ratio(2 * hits, labels + predictions)
    if average == "micro":
        return _mean_ratio(2 * hits.sum(), (labels + predictions).sum())
    if average != "binary":
        raise UsageError(f"average is {average!r}: choose 'macro', 'micro' or 'binary'")
    if len(hits) != 2:
        raise UsageError(
            f"average is 'binary' for {len(hits)} classes: choose 'macro' or 'micro'"
        )
    return _mean_ratio(2 * hits[1], labels[1] + predictions[1])


def iou(matrix: np.ndarray) -> float:
    """Computes the mean intersection over union of the classes.

    The intersection of a class is its hits. Its union is all places that have it as
    their label or as their prediction. As in Keras, classes with an empty union are
    left out.

    Args:
      matrix: Confusion matrix [C, C], at [label, predicted class]; see
        `pixel_confusion`.

    Returns:
      The mean, in [0, 1]; NaN if all unions are empty.

    Raises:
      UsageError: The matrix is not square.
    """
    hits, labels, predictions = _counts(matrix)
    return _mean_ratio(hits, labels + predictions - hits)


def auc(histogram: np.ndarray) -> float:
    """Computes the area under the ROC curve by the trapezoidal rule.

    It is the probability that a positive example has a higher score than a negative one
    (Fawcett, "An introduction to ROC analysis", 2006, section 7). A pair of examples in
    the same bin counts as half, so the result differs from the area for the scores
    themselves by at most `auc_error`.

    Args:
      histogram: Sum of `score_histogram`, [2, bins].

    Returns:
      The area, in [0, 1]; NaN if there are no positive or no negative examples.

    Raises:
      UsageError: The histogram has another shape.
    """
    negative, positive = _rows(histogram)
    below = np.cumsum(negative) - negative
    pairs = negative.sum() * positive.sum()
    return _mean_ratio((positive * (below + negative / 2)).sum(), pairs)


def auc_error(histogram: np.ndarray) -> float:
    """Computes how far `auc` can be from the area for the scores themselves.

    Of all pairs of a positive and a negative example, it is half the share that are in
    the same bin. If it is too large, use more bins, or set `low` and `high` closer to
    the range of the scores.

    Args:
      histogram: Sum of `score_histogram`, [2, bins].

    Returns:
      The bound, in [0, 0.5]; NaN if there are no positive or no negative examples.

    Raises:
      UsageError: The histogram has another shape.
    """
    negative, positive = _rows(histogram)
    pairs = negative.sum() * positive.sum()
    return _mean_ratio((positive * negative).sum() / 2, pairs)


def perplexity(loss: float | np.ndarray, count: float | np.ndarray = 1.0) -> float:
    """Computes exp(loss / count), the perplexity of a model of sequences.

    If sequences differ in length, a mean over sequences is not a mean over tokens. Let
    `forward` return, for each sequence, the summed loss of its tokens and their number,
    as `nll` and `tokens`. The shape [B, 1] makes the trainer sum them. The perplexity
    is then `perplexity(values["nll"], values["tokens"])`.

    Args:
      loss: Mean loss per token in nats; or its sum over tokens, float or [1].
      count: Number of tokens in the sum, float or [1]; 1 for a mean.

    Returns:
      The perplexity; infinity if it is too large for float64, NaN if `count` is 0.
    """
    mean = _mean_ratio(np.sum(loss), np.sum(count))
    with np.errstate(over="ignore"):
        return float(np.exp(mean))


def _counts(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns hits, labels and predictions of each class, float64 [C]."""
    matrix = np.asarray(matrix, np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise UsageError(
            f"the matrix has shape {matrix.shape}: it must be [C, C], the sum of "
            "confusion() or pixel_confusion()"
        )
    return np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)


def _rows(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the counts of negative and positive examples in the bins, float64."""
    histogram = np.asarray(histogram, np.float64)
    if histogram.ndim != 2 or histogram.shape[0] != 2:
        raise UsageError(
            f"the histogram has shape {histogram.shape}: it must be [2, bins], the sum "
            "of score_histogram()"
        )
    return histogram[0], histogram[1]


def _mean_ratio(numerators: np.ndarray, denominators: np.ndarray) -> float:
    """Returns the mean of the ratios that are not 0 / 0; NaN if there is none."""
    numerators, denominators = np.atleast_1d(numerators), np.atleast_1d(denominators)
    there = denominators != 0  # true for NaN
    if not there.any():
        return float("nan")
    return float(np.mean(numerators[there] / denominators[there]))
