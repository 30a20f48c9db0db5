"""Behaviour of lenet_tf.parallel."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf

from lenet_tf.errors import UsageError
from lenet_tf.parallel.collectives import (
    all_reduce_sum,
    local_assign,
    local_assign_add,
)
from lenet_tf.parallel.strategies import make_strategy


def in_new_process(program: str) -> list[str]:
    """Runs a program where TensorFlow has not started yet, and returns what it says."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "shapes", [[[]], [[3]], [[], [2, 3], [], [5, 5, 1, 6], [1, 1]]], ids=str
)
def test_all_reduce_sums_each_tensor_over_the_replicas_in_its_own_shape(
    strategy: tf.distribute.Strategy, shapes: list[list[int]]
) -> None:
    replicas = strategy.num_replicas_in_sync
    rng = np.random.default_rng(0)
    # One array a shape, with the replicas along its first axis.
    values = [rng.normal(size=[replicas, *s]).astype(np.float32) for s in shapes]

    @tf.function
    def step() -> list[tf.Tensor]:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return all_reduce_sum([tf.constant(value)[replica] for value in values])

    sums = strategy.run(step)
    for value, total in zip(values, sums, strict=True):
        copies = strategy.experimental_local_results(total)
        assert len(copies) == replicas
        for copy in copies:
            assert copy.shape == value.shape[1:]
            np.testing.assert_allclose(copy, value.sum(axis=0), rtol=1e-5, atol=1e-6)


def test_all_reduce_of_nothing_but_empty_tensors_keeps_them_empty(
    strategy: tf.distribute.Strategy,
) -> None:
    empty, one = strategy.run(
        tf.function(lambda: all_reduce_sum([tf.zeros([0, 3]), tf.ones([])]))
    )
    for copy in strategy.experimental_local_results(empty):
        assert copy.shape == (0, 3)
    for copy in strategy.experimental_local_results(one):
        assert float(copy) == strategy.num_replicas_in_sync


def test_all_reduce_takes_tensors_of_several_dtypes(
    strategy: tf.distribute.Strategy,
) -> None:
    dtypes = [tf.float64, tf.float32, tf.bfloat16, tf.float64, tf.float16, tf.int64]

    @tf.function
    def step() -> list[tf.Tensor]:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return all_reduce_sum(
            [tf.cast(tf.fill([i, 2], replica + i), t) for i, t in enumerate(dtypes)]
        )

    replicas = strategy.num_replicas_in_sync
    for i, total in enumerate(strategy.run(step)):
        for copy in strategy.experimental_local_results(total):
            assert copy.dtype == dtypes[i]
            expected = sum(range(replicas)) + i * replicas
            np.testing.assert_array_equal(copy, np.full([i, 2], expected))


def test_tensors_of_one_dtype_are_one_vector_in_one_all_reduce() -> None:
    strategy = make_strategy(2)

    @tf.function
    def step() -> list[tf.Tensor]:
        return strategy.run(lambda: all_reduce_sum([tf.ones([3]), tf.ones([2, 2])]))

    operations = [o.type for o in step.get_concrete_function().graph.get_operations()]
    assert operations.count("ConcatV2") == 2  # one a replica
    assert operations.count("AddN") + operations.count("AddV2") == 1


def test_local_assign_changes_each_replicas_own_copy(
    strategy: tf.distribute.Strategy,
) -> None:
    with strategy.scope():
        variable = tf.Variable([1.0, 2.0])

    @tf.function
    def step() -> None:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        local_assign(variable, tf.fill([2], tf.cast(replica, tf.float32)))

    strategy.run(step)
    for i, copy in enumerate(strategy.experimental_local_results(variable)):
        np.testing.assert_array_equal(copy, [i, i])


def test_local_assign_add_changes_each_replicas_own_copy(
    strategy: tf.distribute.Strategy,
) -> None:
    with strategy.scope():
        variable = tf.Variable([1.0, 2.0])

    @tf.function
    def step() -> None:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        local_assign_add(variable, tf.fill([2], tf.cast(replica, tf.float32)))

    strategy.run(step)
    for i, copy in enumerate(strategy.experimental_local_results(variable)):
        np.testing.assert_array_equal(copy, [1.0 + i, 2.0 + i])


@pytest.mark.parametrize("bad", ["0", 0, -1, "-1", "x", "", "2.5"])
def test_a_number_of_replicas_that_is_none_is_refused(bad: int | str) -> None:
    with pytest.raises(UsageError, match="give a number above 0, or auto") as error:
        make_strategy(bad)
    assert str(error.value).startswith(f"num_replicas is {bad!r}: ")


def test_more_replicas_than_cores_are_refused() -> None:
    lines = in_new_process(
        """
        import lenet_tf
        try:
            lenet_tf.make_strategy(10_000)
        except lenet_tf.UsageError as error:
            print(error)
        """
    )
    assert lines[0].startswith("num_replicas is 10000: this machine has ")


def test_more_replicas_than_devices_are_refused_with_both_numbers() -> None:
    with pytest.raises(UsageError, match=r"is 5: this process was set up with 4 CPU"):
        make_strategy(5)


@pytest.mark.parametrize("count", [1, "2", 4])
def test_as_many_replicas_are_made_as_are_asked_for(count: int | str) -> None:
    strategy = make_strategy(count)
    assert strategy.num_replicas_in_sync == int(count)
    expected = [f"CPU:{i}" for i in range(int(count))]
    devices = strategy.extended.worker_devices
    assert [device.split("device:")[-1] for device in devices] == expected


def test_auto_takes_the_logical_devices_that_are_there() -> None:
    assert make_strategy("auto").num_replicas_in_sync == 4


@pytest.mark.parametrize(
    ("batch_size", "replicas"),
    [(1, 1), (15, 1), (31, 1), (32, 2), (50, 3), (64, 4), (1000, 4)],
)
def test_auto_gives_each_replica_at_least_16_examples_of_a_batch(
    batch_size: int, replicas: int
) -> None:
    assert make_strategy(batch_size=batch_size).num_replicas_in_sync == replicas


def test_so_many_replicas_as_are_asked_for_need_one_example_each() -> None:
    assert make_strategy(4, batch_size=4).num_replicas_in_sync == 4
    with pytest.raises(UsageError, match="batch_size is 3: it must be at least num_"):
        make_strategy(4, batch_size=3)


def test_auto_gives_one_replica_a_core_with_one_thread_in_a_new_process() -> None:
    lines = in_new_process(
        """
        import os
        import tensorflow as tf
        from lenet_tf.parallel.strategies import make_strategy
        strategy = make_strategy("auto")
        print(strategy.num_replicas_in_sync == len(os.sched_getaffinity(0)))
        print(tf.config.threading.get_intra_op_parallelism_threads())
        """
    )
    assert lines == ["True", "1"]


def test_threads_and_settings_that_the_user_names_are_kept() -> None:
    lines = in_new_process(
        """
        import os
        os.environ["TF_NUM_INTRAOP_THREADS"] = "3"
        os.environ["TF_MKL_OPTIMIZE_PRIMITIVE_MEMUSE"] = "true"
        import tensorflow as tf
        from lenet_tf.parallel.strategies import make_strategy
        make_strategy(1)
        # 0: not set by a call, so that TensorFlow takes the environment's.
        print(tf.config.threading.get_intra_op_parallelism_threads())
        print(os.environ["TF_MKL_OPTIMIZE_PRIMITIVE_MEMUSE"])
        """
    )
    assert lines == ["0", "true"]


def test_after_tensorflow_has_started_one_line_tells_to_call_it_earlier() -> None:
    lines = in_new_process(
        """
        import os
        import tensorflow as tf
        os.sched_getaffinity = lambda pid: {0, 1}  # two cores on any machine
        from lenet_tf.parallel.strategies import make_strategy
        from lenet_tf.errors import UsageError
        tf.zeros([]) + 1
        print(make_strategy(1).num_replicas_in_sync)
        try:
            make_strategy(2)
        except UsageError as error:
            print(error)
        """
    )
    assert lines == [
        "1",
        "num_replicas is 2, but TensorFlow has started with one CPU device: call "
        "make_strategy before any other TensorFlow operation",
    ]


def test_operations_are_made_deterministic_only_when_asked_for() -> None:
    lines = in_new_process(
        """
        import tensorflow as tf
        from lenet_tf.parallel.strategies import make_strategy

        def draw():
            try:
                return tf.random.normal([1]).shape
            except RuntimeError as error:
                return str(error).split(".")[0]

        make_strategy(1)
        print(draw())
        make_strategy(1, deterministic=True)
        print(draw())
        make_strategy(1)  # does not turn it off
        print(draw())
        tf.random.set_seed(1)
        print(draw())
        """
    )
    refused = "Random ops require a seed to be set when determinism is enabled"
    assert lines == ["(1,)", refused, refused, "(1,)"]


def test_a_deterministic_loop_needs_no_seed_for_random_numbers_of_ours() -> None:
    lines = in_new_process(
        """
        import numpy as np
        import lenet_tf
        strategy = lenet_tf.make_strategy(2, deterministic=True)
        x = np.random.default_rng(0).normal(size=[50, 3]).astype("f4")
        batches = lenet_tf.Batches({"x": x, "y": np.arange(50) % 4}, 16, seed=0)

        def forward(model, batch, training):
            x = lenet_tf.dropout(batch, batch["x"], rate=0.5, salt=1)
            return {"loss": lenet_tf.softmax_cross_entropy(model(x), batch["y"])}

        for _ in range(2):
            with strategy.scope():
                model = lenet_tf.nn.Dense(3, 4, (0, 1), "dense")
            adam = lenet_tf.Adam(0.1)
            trainer = lenet_tf.Trainer(model, adam, forward, strategy=strategy)
            trainer.fit(batches, epochs=3)
            print(model.w.numpy().tobytes().hex())
        """
    )
    first, second = lines
    assert first == second
