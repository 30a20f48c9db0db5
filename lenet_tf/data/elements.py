"""Elements of a `tf.data.Dataset` -> dicts of tensors; nested names joined by "/".

flat_elements(dataset).element_spec      # {"image": ..., "box/x": ..., "box/y": ...}
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from lenet_tf.data.examples import flat


def flat_elements(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns a dataset whose elements are dicts without nesting.

    The names are those that examples read one by one have. A dataset of such elements,
    or of elements that are neither dicts nor tuples, is returned as it is.

    Raises:
      DataError: A name is not a string, or two entries have the same.
    """
    spec = dataset.element_spec
    nested = isinstance(spec, Mapping) and any(
        isinstance(entry, Mapping | tuple) for entry in spec.values()
    )
    if not nested and not isinstance(spec, tuple):
        return dataset
    flat(spec, 0)  # an error, if there is one, is raised here and in one line

    @tf.autograph.experimental.do_not_convert
    def flatten(*element: object) -> dict[str, object]:
        # `map` unpacks plain tuples.
        return flat(element if type(spec) is tuple else element[0], 0)

    return dataset.map(flatten)
