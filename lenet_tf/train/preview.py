"""Finds out what a step will do by tracing it, before anything is computed.

    seen = preview(strategy, lambda batch: forward(model, batch, True), spec)
    seen.outputs                      # what the function returned on the first replica
    seen.writes(model.variables)      # the variables it changes, and their inputs

So shapes, names and a model's own state can be checked before the first step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.nn.random import POSITION, SEED

# Operations that take a variable's handle, but do not change the variable.
_READS = ("ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape")
# What tf.random and tf.nn.dropout draw with, unless they are given a seed of one use.
_STATEFUL_DRAWS = {
    *("RandomUniform", "RandomUniformInt", "RandomStandardNormal", "RandomShuffle"),
    *("TruncatedNormal", "ParameterizedTruncatedNormal", "Multinomial"),
    *("RandomGamma", "RandomPoisson", "RandomPoissonV2"),
    *("StatefulUniform", "StatefulUniformInt", "StatefulStandardNormalV2"),
    *("StatefulTruncatedNormal", "StatefulRandomBinomial"),
}
_READ_ONLY = "_read_only_resource_inputs"  # which handles a called function only reads


@dataclasses.dataclass(frozen=True)
class Write:
    """A change of a variable.

    Attributes:
      variable: Variable that is changed.
      inputs: Names of the batch entries that the new value is computed from.
    """

    variable: tf.Variable
    inputs: frozenset[str]


class Preview:
    """A traced function of a batch.

    Args:
      graph: Graph that the function was traced into.
      outputs: Values that it returned on the first replica.
      batch: Batch that it was traced with, name -> placeholder.
    """

    def __init__(
        self, graph: tf.Graph, outputs: object, batch: Mapping[str, tf.Tensor]
    ) -> None:
        self._graph, self.outputs, self._batch = graph, outputs, batch

    def writes(self, variables: Sequence[tf.Variable]) -> list[Write]:
        """Returns the function's changes to some variables, in their order."""
        inside = {id(outer): inner for outer, inner in self._graph.captures}
        found = []
        for variable in variables:
            copies = getattr(variable, "values", (variable,))
            handles = [inside.get(id(copy.handle)) for copy in copies]
            operations = [
                op
                for handle in handles
                if handle is not None
                for op in handle.consumers()
                if _changes(op, handle)
            ]
            if operations:
                inputs = frozenset(self._inputs_of(operations))
                found.append(Write(variable, inputs))
        return found

    @property
    def variables(self) -> Sequence[tf.Variable]:
        """The variables that the function reads or changes: the copies of replicas."""
        return tuple(self._graph.variables)

    def stateful_draws(self) -> list[str]:
        """Returns the random operations that draw from a state of TensorFlow's.

        What they draw depends on what was drawn before, in this process and on this
        replica. Functions that are called, and the bodies of loops, are looked at too.
        """
        definition = self._graph.as_graph_def()
        bodies = [definition, *definition.library.function]
        nodes = [getattr(body, "node_def", None) or body.node for body in bodies]
        return sorted({node.op for part in nodes for node in part} & _STATEFUL_DRAWS)

    def _inputs_of(self, operations: Sequence[tf.Operation]) -> Iterator[str]:
        """Yields the names of the batch entries that some operations depend on."""
        names = {id(tensor.op): name for name, tensor in self._batch.items()}
        seen: set[int] = set()
        left = list(operations)
        while left:
            op = left.pop()
            if id(op) in seen:
                continue
            seen.add(id(op))
            if id(op) in names:
                yield names[id(op)]
            left += [tensor.op for tensor in op.inputs]


def preview(
    strategy: tf.distribute.Strategy,
    function: Callable[[Mapping[str, tf.Tensor]], object],
    spec: Mapping[str, tf.TensorSpec],
) -> Preview:
    """Traces a function of a replica's share of a batch.

    Args:
      strategy: Strategy in whose replicas the function is traced.
      function: Function of a batch, name -> [B, ...], with `position` and `seed`.
      spec: Shapes and dtypes of a block, from `Batches.spec`.

    Raises:
      UsageError: The data have an entry `position` or `seed`, which the loop adds; or
        the function makes a variable.
    """
    for name in (POSITION, SEED):
        if name in spec:
            raise UsageError(
                f"the data have an entry {name!r}, which the loop adds to every batch: "
                "give it another name"
            )
    size = next(iter(spec.values())).shape[1] // strategy.num_replicas_in_sync
    batch_spec = {
        name: tf.TensorSpec([size, *s.shape[2:]], s.dtype, name=f"batch_{i}")
        for i, (name, s) in enumerate(spec.items())
    }
    batch_spec[POSITION] = tf.TensorSpec([size], tf.int32, name=POSITION)
    batch_spec[SEED] = tf.TensorSpec([2], tf.int64, name=SEED)
    seen: list[Preview] = []

    def traced(batch: Mapping[str, tf.Tensor]) -> None:
        outputs: list[object] = []
        with tf.variable_creator_scope(_refuse_to_make):
            strategy.run(lambda: outputs.append(function(_Entries(batch))))
        seen.append(Preview(tf.compat.v1.get_default_graph(), outputs[0], dict(batch)))

    tf.function(traced, autograph=False).get_concrete_function(batch_spec)
    return seen[-1]


class _Entries(dict[str, tf.Tensor]):
    """A batch that tells its names when one is missing."""

    def __missing__(self, key: str) -> tf.Tensor:
        raise UsageError(
            f"there is no {key!r} in the data, which have {', '.join(self)}: give them "
            "this entry, or do not use it"
        )


def _refuse_to_make(
    next_creator: Callable[..., tf.Variable], **settings: object
) -> tf.Variable:
    raise UsageError(
        f"the variable {settings.get('name')!r} would be made in a step, too late for "
        "checkpoints and optimizers: a model that makes variables at its first call "
        "must be called once, on one example, in strategy.scope()"
    )


def _changes(op: tf.Operation, handle: tf.Tensor) -> bool:
    if op.type in _READS:
        return False
    try:
        reads = op.get_attr(_READ_ONLY)
    except ValueError:  # not a call of a function
        return True
    places = [i for i, tensor in enumerate(op.inputs) if tensor is handle]
    return any(place not in reads for place in places)
