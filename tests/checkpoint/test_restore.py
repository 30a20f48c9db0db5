"""Behaviour of lenet_tf.checkpoint.restore."""

from __future__ import annotations

import math
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from programs import run as program
from small_run import Model, Run, latest

from lenet_tf.checkpoint.restore import Restored, restore_checkpoint, restore_model
from lenet_tf.checkpoint.storage import write
from lenet_tf.errors import CheckpointError
from lenet_tf.optim.averaging import Average


def test_a_record_comes_back_with_every_bit_of_its_floats(
    tmp_path: pathlib.Path,
) -> None:
    run, again = Run(), Run()
    losses = [0.1 + 0.2, math.pi, 1e-300, 5e-324, -0.0, math.inf]
    run.record.rows = [{"epoch": i, "loss": loss} for i, loss in enumerate(losses)]
    run.record.seconds = 1 / 3
    restore_checkpoint(again.checkpoint, run.checkpoint.save(str(tmp_path / "x")))
    assert again.record.rows == run.record.rows
    assert again.record.seconds == 1 / 3
    assert math.copysign(1, again.record.rows[4]["loss"]) == -1
    assert isinstance(again.record.rows[0]["epoch"], int)


def test_a_nan_in_a_record_comes_back_as_nan(tmp_path: pathlib.Path) -> None:
    run, again = Run(), Run()
    run.record.rows = [{"loss": math.nan}]
    restore_checkpoint(again.checkpoint, run.checkpoint.save(str(tmp_path / "x")))
    assert math.isnan(again.record.rows[0]["loss"])


def test_a_variable_that_the_checkpoint_lacks_is_an_error_that_names_it(
    tmp_path: pathlib.Path,
) -> None:
    path = Run().checkpoint.save(str(tmp_path / "x"))
    run = Run()
    run.model.extra = tf.Variable([1.0], name="newcomer")
    with pytest.raises(CheckpointError, match="it lacks model/extra"):
        restore_checkpoint(run.checkpoint, path)


def test_a_variable_that_the_program_lacks_is_an_error_that_names_it(
    tmp_path: pathlib.Path,
) -> None:
    run = Run()
    run.model.extra = tf.Variable([1.0], name="surplus")
    path = run.checkpoint.save(str(tmp_path / "x"))
    with pytest.raises(CheckpointError, match=r"does not fit this program.*extra"):
        restore_checkpoint(Run().checkpoint, path)


def test_a_variable_of_another_shape_is_an_error_of_one_line(
    tmp_path: pathlib.Path,
) -> None:
    run = Run()
    run.model.b = tf.Variable(tf.zeros([5]), name="b")
    path = run.checkpoint.save(str(tmp_path / "x"))
    with pytest.raises(CheckpointError, match="does not fit this program") as error:
        restore_checkpoint(Run().checkpoint, path)
    assert "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match="does not fit"):
        restore_model(Model(), path)


def test_a_checkpoint_with_a_broken_index_is_an_error(tmp_path: pathlib.Path) -> None:
    path = Run().checkpoint.save(str(tmp_path / "x"))
    pathlib.Path(f"{path}.index").write_bytes(b"")
    with pytest.raises(CheckpointError, match="x-1 is damaged: "):
        restore_checkpoint(Run().checkpoint, path)


def test_a_checkpoint_with_truncated_data_is_an_error(tmp_path: pathlib.Path) -> None:
    path = Run().checkpoint.save(str(tmp_path / "x"))
    data = pathlib.Path(f"{path}.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:10])
    with pytest.raises(CheckpointError):
        restore_checkpoint(Run().checkpoint, path)


def test_a_checkpoint_that_is_not_there_is_an_error(tmp_path: pathlib.Path) -> None:
    for call in (
        lambda path: restore_checkpoint(Run().checkpoint, path),
        lambda path: restore_model(Model(), path),
    ):
        with pytest.raises(CheckpointError, match="step-9"):
            call(str(tmp_path / "step-9"))


def test_restoring_a_model_takes_its_weights_and_nothing_else(
    tmp_path: pathlib.Path,
) -> None:
    run = Run()
    run.go_to(4)
    path = latest(run, tmp_path).save(4)
    model = Model()
    restore_model(model, path)
    np.testing.assert_array_equal(model.w, run.model.w)
    np.testing.assert_array_equal(model.b, run.model.b)


def test_restoring_a_model_with_a_variable_more_is_an_error_that_names_it(
    tmp_path: pathlib.Path,
) -> None:
    path = Run().checkpoint.save(str(tmp_path / "x"))
    model = Model()
    model.extra = tf.Variable([1.0], name="newcomer")
    with pytest.raises(CheckpointError, match="it lacks model/extra"):
        restore_model(model, path)


def test_a_restored_value_stays_when_the_program_goes_on(
    tmp_path: pathlib.Path,
) -> None:
    path = Run(3.0).checkpoint.save(str(tmp_path / "x"))
    run = Run()
    restore_checkpoint(run.checkpoint, path)
    run.model.w.assign_add(tf.ones([2, 3]))
    np.testing.assert_array_equal(run.model.w, np.full([2, 3], 4.0))


def test_a_misfit_changes_no_variable_and_does_not_speak_of_the_save_counter(
    tmp_path: pathlib.Path,
) -> None:
    run = Run(3.0)
    run.model.b = tf.Variable(tf.zeros([5]), name="b")
    run.model.surplus = tf.Variable(1)
    path = str(tmp_path / "step-1")
    write(run.checkpoint, path)
    again = Run(7.0)
    again.model.extra = tf.Variable([1.0])
    with pytest.raises(CheckpointError) as error:
        restore_checkpoint(again.checkpoint, path)
    assert str(error.value) == (
        f"{path} does not fit this program: it lacks model/extra; the program has no "
        "model/surplus; the shape or dtype differs for model/b "
        "([5], in the program [3])"
    )
    np.testing.assert_array_equal(again.model.w, np.full([2, 3], 7.0))
    np.testing.assert_array_equal(again.model.b, np.full([3], 7.0))


def test_a_variable_of_another_dtype_is_named(tmp_path: pathlib.Path) -> None:
    run = Run()
    run.model.b = tf.Variable(tf.zeros([3], tf.float64))
    path = run.checkpoint.save(str(tmp_path / "x"))
    with pytest.raises(CheckpointError, match=r"b \(float64, in the program float32\)"):
        restore_checkpoint(Run().checkpoint, path)


MISFIT = """
import sys
sys.path.insert(0, {folder!r})
import tensorflow as tf
from small_run import Run
from lenet_tf.checkpoint.restore import restore_checkpoint
from lenet_tf.errors import CheckpointError

run = Run()
run.model.layers = [tf.Variable(float(i)) for i in range(40)]
again = Run()
again.model.b = tf.Variable(tf.zeros([5]))
try:
    restore_checkpoint(again.checkpoint, run.checkpoint.write({path!r}))
except CheckpointError as error:
    print("error:", error, file=sys.stderr)
"""


def test_a_checkpoint_of_another_model_is_told_of_in_one_line(
    tmp_path: pathlib.Path,
) -> None:
    script = tmp_path / "misfit.py"
    folder = str(pathlib.Path(__file__).parent)
    script.write_text(MISFIT.format(folder=folder, path=str(tmp_path / "step-1")))
    finished = program(str(script))
    assert finished.status == 0
    lines = [line for line in finished.stderr.splitlines() if " port.cc" not in line]
    (line,) = [line for line in lines if "cuda" not in line and "absl::" not in line]
    assert "model/layers/0" in line
    assert "and 30 more; the shape or dtype differs" in line


def test_optional_keys_may_be_missing_or_surplus(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, again = Run(3.0), Run()
    run.model.totals = {"old": tf.Variable(1.0), "both": tf.Variable(2.0)}
    again.model.totals = {"new": tf.Variable(5.0), "both": tf.Variable(6.0)}
    path = run.checkpoint.save(str(tmp_path / "x"))
    caplog.set_level("INFO", logger="absl")
    restored = restore_checkpoint(again.checkpoint, path, ["model/totals/"])
    assert restored == Restored(path, ("model/totals/new",))
    assert float(again.model.totals["both"]) == 2.0
    assert float(again.model.totals["new"]) == 5.0
    np.testing.assert_array_equal(again.model.w, np.full([2, 3], 3.0))
    (message,) = [record.getMessage() for record in caplog.records]
    assert message == f"{path}: not restored, model/totals/old"
    with pytest.raises(CheckpointError, match="it lacks model/totals/new; the program"):
        restore_checkpoint(again.checkpoint, path, ["model/other"])


def test_what_was_ignored_is_not_read_later(tmp_path: pathlib.Path) -> None:
    run, again = Run(), Run()
    run.model.totals = {"old": tf.Variable(1.0)}
    again.model.totals = {}
    path = run.checkpoint.save(str(tmp_path / "x"))
    restore_checkpoint(again.checkpoint, path, ["model/totals/"])
    for file in tmp_path.iterdir():
        file.unlink()
    again.model.totals["old"] = tf.Variable(9.0)
    assert float(again.model.totals["old"]) == 9.0


def test_an_optional_key_of_another_shape_is_refused(tmp_path: pathlib.Path) -> None:
    run, again = Run(), Run()
    run.model.totals = {"both": tf.Variable([1.0])}
    again.model.totals = {"both": tf.Variable(1.0)}
    path = run.checkpoint.save(str(tmp_path / "x"))
    with pytest.raises(CheckpointError, match=r"both \(\[1\], in the program \[\]\)"):
        restore_checkpoint(again.checkpoint, path, ["model/totals/"])


def averaged(path: pathlib.Path) -> str:
    """Saves a model of 1 whose moving average is 2."""
    model = Model(1.0)
    average = Average(model.trainable_variables, 0.9)
    for variable in average.averages:
        variable.assign(tf.fill(variable.shape, 2.0))
    return tf.train.Checkpoint(model=model, average=average).write(str(path / "step-1"))


def test_a_model_gets_the_averaged_weights_where_there_are_any(
    tmp_path: pathlib.Path,
) -> None:
    path, model = averaged(tmp_path), Model()
    restore_model(model, path)
    np.testing.assert_array_equal(model.w, np.full([2, 3], 2.0))
    np.testing.assert_array_equal(model.b, np.full([3], 2.0))
    restore_model(model, path, weights="raw")
    np.testing.assert_array_equal(model.w, np.full([2, 3], 1.0))
    restore_model(model, path, weights="averaged")
    np.testing.assert_array_equal(model.w, np.full([2, 3], 2.0))


def test_an_average_that_is_given_is_restored_beside_the_raw_weights(
    tmp_path: pathlib.Path,
) -> None:
    model = Model()
    average = Average(model.trainable_variables, 0.9)
    restore_model(model, averaged(tmp_path), average)
    np.testing.assert_array_equal(model.w, np.full([2, 3], 1.0))
    for variable in average.averages:
        np.testing.assert_array_equal(variable, np.full(variable.shape, 2.0))


def test_averaged_weights_that_are_not_there_or_do_not_fit_are_an_error(
    tmp_path: pathlib.Path,
) -> None:
    path = Run().checkpoint.save(str(tmp_path / "x"))
    with pytest.raises(CheckpointError, match="no averaged weights: choose weights="):
        restore_model(Model(), path, weights="averaged")
    with pytest.raises(CheckpointError, match="weights is 'ema': choose 'averaged'"):
        restore_model(Model(), path, weights="ema")  # type: ignore[arg-type]
    frozen = Model()
    frozen.b = tf.Variable(frozen.b, trainable=False)
    with pytest.raises(CheckpointError, match="are not those of this model"):
        restore_model(frozen, averaged(tmp_path))


def test_a_model_that_has_no_variables_yet_is_refused(tmp_path: pathlib.Path) -> None:
    path = Run().checkpoint.save(str(tmp_path / "x"))
    with pytest.raises(CheckpointError, match="no variables yet: call it"):
        restore_model(tf.Module(name="lazy"), path)


def test_a_checkpoint_of_the_former_kind_is_an_error(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "x-1")
    tf.raw_ops.SaveV2(
        prefix=path, tensor_names=["w"], shape_and_slices=[""], tensors=[tf.zeros([2])]
    )
    with pytest.raises(CheckpointError, match=r"not written by tf\.train\.Checkpoint"):
        restore_checkpoint(Run().checkpoint, path)
