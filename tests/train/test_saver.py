"""What is saved of a run, which epoch is the best, and what a resume may change."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

import lenet_tf
from lenet_tf.train import HistoryFile


class Slope(tf.Module):
    """y = w * x."""

    def __init__(self) -> None:
        super().__init__(name="slope")
        self.w = tf.Variable(0.0, name="w")


def forward(model: Slope, batch: dict, training: bool) -> dict:
    error = model.w * batch["x"] - batch["y"]
    return {"loss": error**2, "mae": tf.abs(error)}


def with_bias(model: Slope, batch: dict, training: bool) -> dict:
    values = forward(model, batch, training)
    bias = model.w * batch["x"] - batch["y"]
    return {**values, "bias": bias, "bias/first.half": bias / 2}


def data() -> lenet_tf.Batches:
    x = np.linspace(0.5, 1, 20, dtype=np.float32)
    return lenet_tf.Batches({"x": x, "y": 3 * x}, 8, seed=0)


def fit(
    folder: pathlib.Path,
    epochs: int = 3,
    *,
    forward: object = forward,
    validation: bool = True,
    steps: int | None = None,
    stop: int | None = None,
    **options: object,
) -> dict[str, list[float]]:
    trainer = lenet_tf.Trainer(Slope(), lenet_tf.SGD(0.1), forward, steps_per_loop=1)

    def end(moment: lenet_tf.Moment) -> None:
        if moment.step == stop:
            raise lenet_tf.StopRequested()

    return trainer.fit(
        data(),
        epochs=epochs,
        validation=data() if validation else None,
        saver=lenet_tf.Saver(folder, steps=steps, **options),
        actions=[end],
    )


def best_step(folder: pathlib.Path) -> int:
    record = json.loads((folder / "best" / "best.json").read_text())
    return record["checkpoints"][0]["step"]


def test_a_regression_keeps_its_best_epoch_by_default(tmp_path: pathlib.Path) -> None:
    history = fit(tmp_path)
    assert history["val_loss"] == sorted(history["val_loss"], reverse=True)
    assert best_step(tmp_path) == 9  # the last is the lowest


def test_a_run_without_validation_keeps_no_best(tmp_path: pathlib.Path) -> None:
    fit(tmp_path, validation=False)
    assert not (tmp_path / "best").exists()


def test_the_best_by_a_metric_is_as_mode_says(tmp_path: pathlib.Path) -> None:
    fit(tmp_path / "min", best="val_mae", mode="min")
    fit(tmp_path / "max", best="val_mae", mode="max")
    assert best_step(tmp_path / "min") == 9
    assert best_step(tmp_path / "max") == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"best": "val_mae"}, "say mode='max'"),
        ({"best": "val_mae", "mode": "high"}, "mode is 'high'"),
        ({"best": "val_f1"}, "choose one of loss, mae, val_loss, val_mae, or None"),
        ({"best": "val_loss", "validation": False}, "choose one of loss, mae, or None"),
    ],
)
def test_what_cannot_be_the_best_is_refused_before_the_first_step(
    options: dict, message: str, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(lenet_tf.UsageError, match=message):
        fit(tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_metric_may_be_added_when_a_run_goes_on(tmp_path: pathlib.Path) -> None:
    expected = fit(tmp_path / "whole", forward=with_bias)
    with pytest.raises(lenet_tf.StopRequested):
        fit(tmp_path / "run", stop=4)  # in mid-epoch 2
    history = fit(tmp_path / "run", forward=with_bias)
    # Epoch 1 was without it; of epoch 2 the first step was.
    assert np.isnan(history["bias"][:2]).all()
    assert np.isnan(history["bias/first.half"][:2]).all()
    for name in ("bias", "bias/first.half"):
        assert history[name][2] == expected[name][2]
    assert history["val_bias"][1:] == expected["val_bias"][1:]
    assert history["loss"] == expected["loss"]


def test_a_metric_may_be_dropped_when_a_run_goes_on(tmp_path: pathlib.Path) -> None:
    expected = fit(tmp_path / "whole")
    with pytest.raises(lenet_tf.StopRequested):
        fit(tmp_path / "run", forward=with_bias, stop=4)
    history = fit(tmp_path / "run")
    assert history["loss"] == expected["loss"]


def test_a_metric_added_at_an_epochs_end_misses_nothing(
    tmp_path: pathlib.Path,
) -> None:
    expected = fit(tmp_path / "whole", forward=with_bias)
    fit(tmp_path / "run", 1)
    history = fit(tmp_path / "run", forward=with_bias)
    assert np.isnan(history["bias"][0])
    assert history["bias"][1:] == expected["bias"][1:]


def test_a_run_that_is_not_to_be_resumed_is_left_alone(tmp_path: pathlib.Path) -> None:
    fit(tmp_path, 1)
    with pytest.raises(lenet_tf.errors.CheckpointError) as error:
        fit(tmp_path, resume=False)
    assert "--" not in str(error.value)  # a library user has no flags


def test_the_history_file_makes_its_folder_before_anything_is_saved(
    tmp_path: pathlib.Path,
) -> None:
    trainer = lenet_tf.Trainer(Slope(), lenet_tf.SGD(0.1), forward)
    history = HistoryFile(str(tmp_path / "run" / "history.csv"))
    trainer.fit(data(), epochs=1, actions=[history])
    assert (tmp_path / "run" / "history.csv").exists()


def test_an_action_can_write_into_the_savers_folder_before_the_first_save(
    tmp_path: pathlib.Path,
) -> None:
    def write(moment: lenet_tf.Moment) -> None:
        (tmp_path / "run" / f"{moment.step}.txt").write_text("here")

    trainer = lenet_tf.Trainer(Slope(), lenet_tf.SGD(0.1), forward)
    trainer.fit(
        data(), epochs=1, saver=lenet_tf.Saver(tmp_path / "run"), actions=[write]
    )
    assert list((tmp_path / "run").glob("*.txt"))
