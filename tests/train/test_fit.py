"""What `fit` does for a user's own model: data, names, actions, ends."""

import gc
import io
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import lenet_tf
from lenet_tf.parallel import make_strategy
from lenet_tf.train import Enough, HistoryFile, at, every_epoch, every_row
from lenet_tf.train.rows import Rows


class Line(tf.Module):
    """y = w * x."""

    def __init__(self) -> None:
        super().__init__(name="line")
        self.w = tf.Variable(0.0, name="w")


def forward(model: Line, batch: dict, training: bool) -> dict:
    error = model.w * batch["x"] - batch["y"]
    return {"loss": error**2, "mae": tf.abs(error)}


def trainer(forward: Callable = forward, **options: Any) -> lenet_tf.Trainer:
    optimizer = options.pop("optimizer", None) or lenet_tf.SGD(0.01)
    return lenet_tf.Trainer(Line(), optimizer, forward, **options)


def arrays(examples: int = 20) -> dict[str, np.ndarray]:
    x = np.linspace(-1, 1, examples, dtype=np.float32)
    return {"x": x, "y": 3 * x}


def batches(size: int = 8, examples: int = 20) -> lenet_tf.Batches:
    return lenet_tf.Batches(arrays(examples), size, seed=0)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: batches(16), "batch_size was 8 and is 16"),
        (lambda: batches(8, 40), "examples was 20 and is 40"),
        (lambda: lenet_tf.Batches(arrays(), 8, seed=1), "seed was 0 and is 1"),
        (
            lambda: lenet_tf.Batches({**arrays(), "y": np.ones(20, "f")}, 8, seed=0),
            "checksum was",
        ),
    ],
    ids=["batch size", "examples", "order", "values"],
)
def test_a_run_does_not_go_on_with_other_data(
    other: Callable[[], lenet_tf.Batches], message: str, tmp_path: pathlib.Path
) -> None:
    first = trainer()
    first.fit(batches(), epochs=2, saver=lenet_tf.Saver(tmp_path))
    with pytest.raises(lenet_tf.UsageError, match=message):
        first.fit(other(), epochs=3)
    resumed = trainer()
    with pytest.raises(lenet_tf.UsageError, match=message):
        resumed.fit(other(), epochs=3, saver=lenet_tf.Saver(tmp_path))
    resumed = trainer()
    saver = lenet_tf.Saver(tmp_path)
    assert len(resumed.fit(batches(), epochs=3, saver=saver)["loss"]) == 3


def test_a_run_goes_on_with_mended_data_when_it_is_told_to() -> None:
    one = trainer()
    one.fit(batches(), epochs=1)
    mended = {**arrays(), "y": np.ones(20, np.float32)}
    history = one.fit(lenet_tf.Batches(mended, 8, seed=0), epochs=2, data_changed=True)
    assert len(history["loss"]) == 2
    with pytest.raises(lenet_tf.UsageError, match="examples was 20 and is 40"):
        one.fit(batches(8, 40), epochs=3, data_changed=True)


@pytest.mark.parametrize("name", ["position", "seed"])
def test_an_entry_that_the_loop_adds_is_refused(name: str) -> None:
    data = lenet_tf.Batches({**arrays(), name: np.arange(20)}, 8)
    with pytest.raises(lenet_tf.UsageError, match=f"an entry '{name}'"):
        trainer().fit(data, epochs=1)
    with pytest.raises(lenet_tf.UsageError, match=f"an entry '{name}'"):
        trainer().evaluate(data)


@pytest.mark.parametrize("name", ["epoch", "step", "weight", "examples", "val_mae"])
def test_a_value_with_a_name_that_is_taken_is_refused(name: str) -> None:
    def taken(model: Line, batch: dict, training: bool) -> dict:
        values = forward(model, batch, training)
        return {**values, name: values["mae"]}

    with pytest.raises(lenet_tf.UsageError, match=f"'{name}', which is taken"):
        trainer(taken).fit(batches(), epochs=1)


def test_training_and_evaluation_may_return_other_values() -> None:
    def either(model: Line, batch: dict, training: bool) -> dict:
        values = forward(model, batch, training)
        extra = (
            {"scale": tf.ones_like(batch["x"])} if training else {"sign": batch["x"]}
        )
        return {**values, **extra}

    history = trainer(either).fit(batches(), epochs=1, validation=batches())
    assert set(history) == {
        *("loss", "mae", "scale"),
        *("val_loss", "val_mae", "val_sign"),
    }


def test_random_numbers_in_evaluation_are_keyed_and_not_those_of_training() -> None:
    def noisy(model: Line, batch: dict, training: bool) -> dict:
        noise = lenet_tf.nn.uniform(batch, [], salt=1)
        return {"loss": (model.w + noise) ** 2, "noise": noise}

    results = []
    for replicas in (1, 2):
        strategy = make_strategy(replicas)
        with strategy.scope():
            model = Line()
        one = lenet_tf.Trainer(model, lenet_tf.SGD(1e-6), noisy, strategy=strategy)
        results.append([one.evaluate(batches())["noise"] for _ in range(2)])
        others = [lenet_tf.Batches(arrays(), size) for size in (3, 7, 20)]
        noise = [one.predict(data)["noise"] for data in others]
        np.testing.assert_array_equal(noise[1:], noise[:1] * 2)
        assert len(set(noise[0])) == 20
        for data in others:  # not by the size of the batches
            values = one.evaluate(data)
            assert values["noise"] == pytest.approx(noise[0].mean(), rel=1e-6)
        trained = one.fit(batches(), epochs=1)["noise"][0]
        assert trained != pytest.approx(results[-1][0], abs=1e-3)
    assert results[0][0] == results[0][1]
    assert results[0] == pytest.approx(results[1], rel=1e-6)


def test_validation_may_come_later() -> None:
    one = trainer()
    one.fit(batches(), epochs=1)
    history = one.fit(batches(), epochs=2, validation=batches())
    assert np.isnan(history["val_loss"][0])
    assert np.isfinite(history["val_loss"][1])
    assert len(history["loss"]) == 2


def test_what_an_action_changes_is_in_the_checkpoint_of_its_moment(
    tmp_path: pathlib.Path,
) -> None:
    """An action that lowers the rate: the run that is killed after it goes on so."""

    def make() -> tuple[lenet_tf.Trainer, Callable]:
        rate = tf.Variable(0.01, trainable=False, name="rate")
        one = trainer(optimizer=lenet_tf.SGD(rate))
        return one, at(every_epoch(), lambda moment: rate.assign(rate / 2))

    def kill(moment: lenet_tf.Moment) -> None:
        if moment.step >= 4:
            raise KeyboardInterrupt

    whole, halve = make()
    expected = whole.fit(batches(), epochs=3, actions=[halve])
    stopped, halve = make()
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(
            batches(),
            epochs=3,
            saver=lenet_tf.Saver(tmp_path),
            actions=[halve, kill],
        )
    resumed, halve = make()
    saver = lenet_tf.Saver(tmp_path)
    assert resumed.fit(batches(), epochs=3, saver=saver, actions=[halve]) == expected
    assert resumed.model.w.numpy() == whole.model.w.numpy()


def test_reports_come_after_the_save(tmp_path: pathlib.Path) -> None:
    """A history file never tells of an epoch whose checkpoint is not there yet."""
    seen = []

    class Look:
        after_save = True

        def __call__(self, moment: lenet_tf.Moment) -> None:
            seen.append((tmp_path / f"checkpoints/step-{moment.step}.index").exists())

    actions = [Look(), HistoryFile(tmp_path / "new" / "history.csv")]
    saver = lenet_tf.Saver(tmp_path, steps=1)
    trainer().fit(batches(), epochs=2, saver=saver, actions=actions)
    assert seen == [True, True]
    assert (tmp_path / "new" / "history.csv").read_text().count("\n") == 3


def test_an_action_ends_the_run_and_a_restart_does_not_go_on(
    tmp_path: pathlib.Path,
) -> None:
    def enough(moment: lenet_tf.Moment) -> None:
        if moment.row is not None and moment.epoch >= 2:
            raise Enough("the loss is low")

    def run(epochs: int) -> tuple[int, int]:
        one, file = trainer(), tmp_path / "history.csv"
        actions = [enough, HistoryFile(file)]
        saver = lenet_tf.Saver(tmp_path)
        history = one.fit(batches(), epochs=epochs, saver=saver, actions=actions)
        assert file.read_text().count("\n") == len(history["loss"]) + 1
        return len(history["loss"]), int(one.state.step.numpy())

    assert run(9) == (2, 6)
    assert run(9) == (2, 6)  # it had ended
    assert run(12) == (3, 9)  # more epochs are wanted, until there is enough again


def test_a_signal_is_noticed_without_a_poll(tmp_path: pathlib.Path) -> None:
    def interrupt(moment: lenet_tf.Moment) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    saver = lenet_tf.Saver(tmp_path)
    with lenet_tf.StopSignals(), pytest.raises(lenet_tf.StopRequested) as stop:
        trainer().fit(batches(), epochs=9, saver=saver, actions=[interrupt])
    assert stop.value.signum == signal.SIGTERM
    assert (tmp_path / "checkpoints" / "step-3.index").exists()


def test_an_action_stops_the_run_without_a_signal(tmp_path: pathlib.Path) -> None:
    def stop(moment: lenet_tf.Moment) -> None:
        raise lenet_tf.StopRequested()

    saver = lenet_tf.Saver(tmp_path)
    with pytest.raises(lenet_tf.StopRequested, match="goes on"):
        trainer(steps_per_loop=2).fit(batches(), epochs=9, saver=saver, actions=[stop])
    assert (tmp_path / "checkpoints" / "step-2.index").exists()


def test_the_progress_bar_goes_when_a_run_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)

    def stop(moment: lenet_tf.Moment) -> None:
        if moment.step >= 4:
            raise lenet_tf.StopRequested()

    one = trainer(steps_per_loop=1)
    with pytest.raises(lenet_tf.StopRequested):
        one.fit(batches(), epochs=3, actions=[lenet_tf.Progress(), stop])
    assert terminal.getvalue().rsplit("\r", 2)[-1].strip() == ""


def test_speed_counts_examples_and_no_padding() -> None:
    """17 examples in batches of 16: two steps, of which the second has one."""
    rows = Rows(batches(16, 17), 2, steps=None, row_steps=None, row_examples=None)
    assert [rows.examples_until(step) for step in range(5)] == [0, 16, 17, 33, 34]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.fit(arrays(), epochs=1), r"give lenet_tf.Batches"),
        (lambda t: t.fit(batches(), epochs=1, saver="dir"), "give lenet_tf.Saver"),
        (lambda t: t.evaluate(arrays()), r"give lenet_tf.Batches"),
        (lambda t: t.train_on({}), r"trainer\.start"),
    ],
)
def test_a_wrong_argument_is_one_line(call: Callable, message: str) -> None:
    with pytest.raises(lenet_tf.UsageError, match=message) as error:
        call(trainer())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"f1": None}, "None as 'f1'"),
        ({"loss": [1.0]}, r"\[1.0\] as 'loss'"),
    ],
)
def test_a_value_that_is_no_tensor_is_refused(values: dict, message: str) -> None:
    def bad(model: Line, batch: dict, training: bool) -> dict:
        return {**forward(model, batch, training), **values}

    with pytest.raises(lenet_tf.UsageError, match=message):
        trainer(bad).fit(batches(), epochs=1)


def test_a_model_that_is_no_module_is_refused() -> None:
    with pytest.raises(lenet_tf.UsageError, match=r"must be a tf\.Module"):
        lenet_tf.Trainer(lambda x: x, lenet_tf.SGD(0.1), forward)


@pytest.mark.parametrize("label", [-1, 10])
def test_a_label_that_is_no_class_is_one_line(label: int) -> None:
    image = np.zeros([8, 28, 28, 1], np.uint8)
    labels = np.array([0, 1, 2, label, 4, 5, 6, 7], np.int32)
    one = lenet_tf.Trainer(lenet_tf.LeNet5(), lenet_tf.SGD(0.1))
    data = lenet_tf.Batches({"image": image, "label": labels}, 8)
    line = f"a label is {label}: labels must be in [0, 10)"
    for call in (lambda: one.fit(data, epochs=1), lambda: one.evaluate(data)):
        with pytest.raises(lenet_tf.errors.DataError) as error:
            call()
        assert str(error.value) == line


def test_many_trainers_in_a_process_give_no_warning() -> None:
    """As in k-fold: TensorFlow warned of retracing from the fifth on."""
    program = """
import numpy as np, tensorflow as tf, lenet_tf
for fold in range(7):
    model = tf.Module()
    model.w = tf.Variable(0.0)
    def forward(model, batch, training):
        return {"loss": (model.w - batch["x"]) ** 2}
    data = lenet_tf.Batches({"x": np.ones(4, np.float32)}, 4)
    trainer = lenet_tf.Trainer(model, lenet_tf.SGD(0.1), forward)
    trainer.fit(data, epochs=1, validation=data)
"""
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "retracing" not in finished.stderr


@pytest.mark.parametrize(
    ("draw", "warned"),
    [
        (lambda batch: tf.random.normal([1])[0], True),
        (lambda batch: tf.nn.dropout(batch["x"], 0.5), True),
        (
            lambda batch: tf.map_fn(lambda x: x + tf.random.uniform([]), batch["x"]),
            True,
        ),
        (lambda batch: lenet_tf.dropout(batch, batch["x"], 0.5, salt=1), False),
        (lambda batch: tf.random.stateless_normal([1], batch["seed"])[0], False),
    ],
    ids=["normal", "dropout", "in a loop", "keyed", "stateless"],
)
def test_random_numbers_that_would_silently_differ_are_warned_of(
    draw: Callable, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def noisy(model: Line, batch: dict, training: bool) -> dict:
        return {"loss": (model.w * batch["x"] + draw(batch) - batch["y"]) ** 2}

    trainer(noisy).start(batches())
    assert ("and after a resume; lenet_tf.dropout" in caplog.text) == warned


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_trainer_that_is_gone_leaves_no_graph_behind(replicas: int) -> None:
    strategy = make_strategy(replicas)

    def count_graphs() -> int:
        gc.collect()
        kinds = (tf.Graph, tf.types.experimental.ConcreteFunction)
        return sum(isinstance(each, kinds) for each in gc.get_objects())

    counts = []
    for seed in range(4):
        with strategy.scope():
            model = lenet_tf.LeNet5(seed=seed)
        one = lenet_tf.Trainer(model, lenet_tf.Adam(), strategy=strategy)
        image = np.zeros([8, 28, 28, 1], np.uint8)
        data = {"image": image, "label": np.arange(8, dtype=np.int32)}
        batches = lenet_tf.Batches(data, 8)
        one.fit(batches, epochs=1, validation=batches)
        del one, model, batches
        counts.append(count_graphs())
    assert counts[3] == counts[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 1.5}, r"epochs is 1\.5: give a whole number"),
        ({"epochs": 1, "actions": [lenet_tf.Progress]}, "objects such as Progress()"),
        ({"epochs": 1, "actions": ["progress"]}, "actions have 'progress'"),
        ({"epochs": 1, "actions": lenet_tf.Progress()}, "give a list of actions"),
        ({"epochs": 1, "actions": [lenet_tf.Saver("x")]}, "a saver as saver="),
        (
            {"epochs": 1, "actions": [at(lambda moment: None, every_epoch())]},
            r"returned None: give at\(when, action\)",
        ),
        (
            {"epochs": 1, "actions": [lenet_tf.Progress(metrics=["los"])]},
            "no metric 'los' to show: choose among loss, mae",
        ),
        (
            {
                "epochs": 1,
                "validation": {"a": batches(), "a_loss": batches(), "": batches()},
            },
            "as ''",
        ),
    ],
)
def test_wrong_arguments_of_fit_are_one_line(options: dict, message: str) -> None:
    with pytest.raises(lenet_tf.UsageError, match=message) as error:
        trainer().fit(batches(), **options)
    assert "\n" not in str(error.value)


def test_two_metrics_of_one_name_are_refused() -> None:
    def values(model: Line, batch: dict, training: bool) -> dict:
        loss = forward(model, batch, training)["loss"]
        return {"loss": loss, "b_c": loss, "c": loss}

    with pytest.raises(lenet_tf.UsageError, match="two metrics are called 'val_a_b_c'"):
        trainer(values).fit(
            batches(), epochs=1, validation={"a": batches(), "a_b": batches()}
        )


def test_an_entry_that_the_data_lack_is_named() -> None:
    def values(model: Line, batch: dict, training: bool) -> dict:
        return {"loss": batch["target"]}

    message = "no 'target' in the data, which have x, y, weight, position, seed"
    with pytest.raises(lenet_tf.UsageError, match=message):
        trainer(values).fit(batches(), epochs=1)


def test_an_evaluation_that_changes_the_model_is_refused() -> None:
    class Counting(Line):
        def __init__(self) -> None:
            super().__init__()
            self.calls = tf.Variable(0, trainable=False, name="calls")

    def values(model: Counting, batch: dict, training: bool) -> dict:
        model.calls.assign_add(1)
        return forward(model, batch, training)

    one = lenet_tf.Trainer(Counting(), lenet_tf.SGD(0.01), values)
    one.fit(batches(), epochs=1)
    with pytest.raises(lenet_tf.UsageError, match="forward changes calls with"):
        one.evaluate(batches())


def test_a_run_does_not_go_on_with_another_seed(tmp_path: pathlib.Path) -> None:
    trainer(seed=1).fit(batches(), epochs=1, saver=lenet_tf.Saver(tmp_path))
    with pytest.raises(lenet_tf.UsageError, match="seed of the trainer was 1 and is 2"):
        trainer(seed=2).fit(batches(), epochs=2, saver=lenet_tf.Saver(tmp_path))


def test_progress_shows_the_metrics_that_it_is_told() -> None:
    lines: list[str] = []
    trainer().fit(
        batches(), epochs=1, actions=[lenet_tf.Progress(lines.append, metrics=["mae"])]
    )
    assert "mae" in lines[0] and "loss" not in lines[0]


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_variable_that_is_in_no_checkpoint_may_not_change(replicas: int) -> None:
    strategy = make_strategy(replicas)
    with strategy.scope():
        model, factor = Line(), tf.Variable(1.0, name="factor")

    def scaled(model: Line, batch: dict, training: bool) -> dict:
        return {"loss": factor * forward(model, batch, training)["loss"]}

    def change(moment: lenet_tf.Moment) -> None:
        if moment.step == 2:
            factor.assign(2.0)

    one = lenet_tf.Trainer(
        model, lenet_tf.SGD(0.01), scaled, strategy=strategy, steps_per_loop=1
    )
    one.fit(batches(), steps=2)
    with pytest.raises(lenet_tf.UsageError, match="factor is read in a step and was"):
        one.fit(batches(), steps=5, actions=[change, lambda moment: factor.assign(3.0)])


def test_a_run_that_an_action_ends_in_mid_epoch_has_a_row_of_its_last_steps(
    tmp_path: pathlib.Path,
) -> None:
    def enough(moment: lenet_tf.Moment) -> None:
        if moment.step == 4:
            raise Enough("that will do")

    one, file = trainer(steps_per_loop=1), tmp_path / "history.csv"
    saver = lenet_tf.Saver(tmp_path)
    actions = [enough, at(every_row(), HistoryFile(file))]
    history = one.fit(
        batches(), epochs=3, validation=batches(), saver=saver, actions=actions
    )
    assert [row["step"] for row in one.record.rows] == [3, 4]
    assert history["val_loss"][-1] == one.evaluate(batches())["loss"]
    assert file.read_text().count("\n") == 3
    assert (tmp_path / "best" / "step-4.index").exists()
    again = trainer(steps_per_loop=1)
    again.fit(batches(), epochs=3, validation=batches(), saver=lenet_tf.Saver(tmp_path))
    assert again.record.rows == one.record.rows


def test_an_update_without_a_name_is_refused_with_the_form() -> None:
    model = Line()
    for wrong in (
        lenet_tf.Update(model, lenet_tf.SGD(0.1)),
        [lenet_tf.Update(model, lenet_tf.SGD(0.1))],
    ):
        with pytest.raises(lenet_tf.UsageError, match="give updates by name"):
            lenet_tf.Trainer(model, wrong, forward)
