"""Actions with a memory: against Keras's callbacks, and after a resume, bit for bit."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import pytest
import tensorflow as tf

import lenet_tf
import lenet_tf.keras
from lenet_tf.optim import constant
from lenet_tf.train import Enough, Moment, Trainer, Update, every_row
from lenet_tf.train.actions import Action
from lenet_tf.train.actions.patience import Patience
from lenet_tf.train.actions.plateau import ReduceOnPlateau
from lenet_tf.train.actions.stop_after import StopAfter
from lenet_tf.train.better import better_mode
from lenet_tf.train.update import Rule

Values = Sequence[float]
NAN = float("nan")


class Line(tf.Module):
    """y = w * x + b."""

    def __init__(self) -> None:
        super().__init__(name="line")
        self.w, self.b = tf.Variable(0.0, name="w"), tf.Variable(0.0, name="b")


def forward(model: Line, batch: dict, training: bool) -> dict:
    error = model.w * batch["x"] + model.b - batch["y"]
    return {"loss": error**2, "size": tf.abs(error)}


def data(seed: int | None = 0) -> lenet_tf.Batches:
    rng = np.random.default_rng(7)
    x = rng.normal(size=22).astype(np.float32)
    y = (2 * x + rng.normal(size=22)).astype(np.float32)
    return lenet_tf.Batches({"x": x, "y": y}, 8, seed=seed)


def make_trainer(
    replicas: int | tf.distribute.Strategy = 1, optimizer: Rule | None = None
) -> Trainer:
    """A trainer whose rate is by default a variable of 0.5."""
    given = isinstance(replicas, tf.distribute.Strategy)
    strategy = replicas if given else lenet_tf.make_strategy(replicas)
    with strategy.scope():
        model = Line()
    optimizer = optimizer or lenet_tf.SGD(tf.Variable(0.5))
    return Trainer(model, optimizer, forward, strategy=strategy, steps_per_loop=1)


def rate_of(trainer: Trainer, update: str = "optimizer") -> float:
    return float(trainer.state.updates[update].optimizer.learning_rate.numpy())


def moments(values: Values, trainer: Trainer, metric: str) -> Iterator[Moment]:
    """Moments with these values in their rows, and one without a row after each."""
    for i, value in enumerate(values, start=1):
        for row in ({"epoch": i, "step": i, metric: value}, None):
            yield Moment(
                step=i,
                loop_steps=1,
                steps=len(values),
                epoch=i,
                epochs=len(values),
                steps_per_epoch=1,
                examples_per_second=1.0,
                seconds=1.0,
                row=row,
                metrics={},
                state=trainer.state,
            )


def sequences(count: int) -> Iterator[list[float]]:
    """Values with plateaus and ties; NaN and infinity too, but not at first."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        steps = rng.choice([-1.0, -0.25, 0.0, 0.25, 0.5], size=30)
        values = 10 + np.cumsum(steps)
        values[1 + rng.integers(0, 29, 2)] = [NAN, np.inf]
        yield values.tolist()


def keras_model() -> keras.Model:
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.5), "mse")
    return model


@pytest.mark.parametrize(
    "options",
    [
        {"rows": 1, "factor": 0.5},
        {"rows": 2, "factor": 0.3, "min_change": 0.3},
        {"rows": 3, "cooldown": 2, "min_rate": 0.01},
        {"rows": 1, "cooldown": 1, "factor": 0.9, "min_change": 0.0},
        {"rows": 2, "cooldown": 4, "min_rate": 0.2, "factor": 0.5},
    ],
)
@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_rate_is_lowered_when_keras_lowers_it(options: dict, mode: str) -> None:
    trainer, model = make_trainer(), keras_model()
    names = {"rows": "patience", "min_change": "min_delta", "min_rate": "min_lr"}
    keras_options = {names.get(name, name): v for name, v in options.items()}
    theirs = keras.callbacks.ReduceLROnPlateau("score", mode=mode, **keras_options)
    theirs.set_model(model)
    reductions = 0
    for values in sequences(10):
        ours = ReduceOnPlateau("score", mode=mode, **options)
        rate = trainer.state.updates["optimizer"].optimizer.learning_rate
        rate.assign(0.5)
        model.optimizer.learning_rate = 0.5
        theirs.on_train_begin()
        expected, found = [], []
        for moment in moments(values, trainer, "score"):
            ours(moment)
            if moment.row is not None:
                theirs.on_epoch_end(moment.epoch - 1, {"score": moment.row["score"]})
                found.append(rate_of(trainer))
                expected.append(float(model.optimizer.learning_rate))
        assert found == expected  # the same bits
        reductions += len(set(found)) - 1
    assert reductions >= 10


@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize("min_change", [0.0, 0.3])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_run_ends_when_keras_ends_it(rows: int, min_change: float, mode: str) -> None:
    trainer, model = make_trainer(), keras_model()
    ended = 0
    for values in sequences(12):
        ours = Patience("score", rows, mode, min_change)
        theirs = keras.callbacks.EarlyStopping("score", min_change, rows, mode=mode)
        theirs.set_model(model)
        theirs.on_train_begin()
        model.stop_training = False
        for moment in moments(values, trainer, "score"):
            if moment.row is not None:
                theirs.on_epoch_end(moment.epoch - 1, {"score": moment.row["score"]})
            if model.stop_training:
                with pytest.raises(Enough, match=f"better for {rows} rows"):
                    ours(moment)
                ended += 1
                break
            ours(moment)
    assert ended >= 5


def ends_at(action: Action, values: Values) -> int | None:
    """The row at which an action ends a run, counted from 1."""
    for moment in moments(values, make_trainer(), "val_loss"):
        try:
            action(moment)
        except Enough:
            return moment.step
    return None


def test_nan_is_never_better_not_even_first() -> None:
    assert ends_at(Patience("val_loss", 2), [NAN, NAN]) == 2
    assert ends_at(Patience("val_loss", 2), [NAN, 5, NAN, 4, NAN, NAN]) == 6
    assert ends_at(Patience("val_loss", 2), [NAN, 5.0, 4.0, 3.0]) is None


def test_a_run_that_goes_on_after_its_end_has_as_many_rows_again() -> None:
    patience, values = Patience("val_loss", 2), [1.0, 2.0, 2.0, 2.0, 2.0, 0.5]
    assert ends_at(patience, values[:3]) == 3
    assert ends_at(patience, values[3:]) == 2
    assert ends_at(patience, [0.5, 0.4]) is None


def test_which_values_are_better_is_told_by_the_end_of_the_name() -> None:
    higher = ["val_accuracy", "f1", "val_macro_f1", "auc", "val_clean_auc", "mean_iou"]
    lower = ["loss", "val_error", "val_perplexity"]
    assert {better_mode(name) for name in higher} == {"max"}
    assert {better_mode(name) for name in lower} == {"min"}
    assert better_mode("loss", "max") == "max"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: better_mode("bleu"), "mode is None for 'bleu'.*say mode='max'"),
        (lambda: Patience("loss", mode="up"), "mode is 'up'"),
        (lambda: Patience("loss", rows=0), "rows is 0"),
        (lambda: Patience("loss", min_change=-1.0), "min_change is -1"),
        (lambda: Patience("loss", min_change=NAN), "min_change is nan"),
        (lambda: ReduceOnPlateau("loss", factor=1.0), "factor is 1.0"),
        (lambda: ReduceOnPlateau("loss", rows=0), "rows is 0"),
        (lambda: ReduceOnPlateau("loss", cooldown=-1), "cooldown is -1"),
        (lambda: ReduceOnPlateau("loss", min_rate=-1.0), "min_rate is -1"),
        (lambda: StopAfter(0), "seconds is 0"),
    ],
)
def test_wrong_arguments_are_refused(make: Callable, message: str) -> None:
    with pytest.raises(lenet_tf.UsageError, match=message):
        make()


@pytest.mark.parametrize(
    ("action", "optimizer", "message"),
    [
        (ReduceOnPlateau("loss"), lenet_tf.SGD(1e-3), r"is 0\.001.*Adam\(tf\.Variable"),
        (ReduceOnPlateau("loss"), lenet_tf.SGD(constant(1e-3)), "is a schedule.*Adam"),
        (ReduceOnPlateau("loss", update="head"), None, "'head': give one of optimizer"),
        (ReduceOnPlateau("f1"), None, "no metric 'f1'.*one of loss, size"),
        (Patience("f1"), None, "no metric 'f1'.*one of loss, size"),
    ],
)
def test_what_an_action_cannot_work_with_is_refused_before_the_first_step(
    action: Action, optimizer: Rule | None, message: str
) -> None:
    trainer = make_trainer(optimizer=optimizer)
    with pytest.raises(lenet_tf.UsageError, match=message):
        trainer.fit(data(), epochs=1, actions=[action])
    assert trainer.state.step.numpy() == 0


class Stop:
    """Stops a run as a kill does, after the step was saved."""

    after_save = True

    def __init__(self, step: int | None) -> None:
        self._step = step

    def __call__(self, moment: Moment) -> None:
        if moment.step == self._step:
            raise KeyboardInterrupt


def fit(
    trainer: Trainer,
    actions: Sequence[Action],
    folder: pathlib.Path | None = None,
    epochs: int = 12,
    stop: int | None = None,
) -> dict[str, list[float]]:
    """Trains on three steps an epoch, and is killed after step `stop`."""
    return trainer.fit(
        data(),
        epochs=epochs,
        validation=data(None),
        saver=None if folder is None else lenet_tf.Saver(folder, steps=stop),
        actions=[*actions, Stop(stop)],
    )


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_lowered_rate_is_resumed_bit_for_bit(
    replicas: int, tmp_path: pathlib.Path
) -> None:
    rates: dict[int, float] = {}

    def run(folder: pathlib.Path | None = None, stop: int | None = None) -> tuple:
        trainer = make_trainer(replicas)
        action = ReduceOnPlateau("val_loss", 0.5, 2, min_change=1e-3, cooldown=1)

        def note(moment: Moment) -> None:
            known = rates.setdefault(moment.step, rate_of(trainer))
            assert known == rate_of(trainer)

        try:
            history = fit(trainer, [action, note], folder, stop=stop)
        except KeyboardInterrupt:
            history = {}
        return history, trainer.model.w.numpy(), rate_of(trainer), action.state()

    expected = run()
    assert len(set(rates.values())) >= 3  # it was lowered more than once
    for stop in (18, 22):  # at the end of an epoch, and between
        assert run(tmp_path, stop)[0] == {}
    assert run(tmp_path) == expected


def test_the_rate_may_be_made_in_the_scope_or_outside_or_by_keras() -> None:
    strategy = lenet_tf.make_strategy(2)
    with strategy.scope():
        inside = lenet_tf.SGD(tf.Variable(0.5))
        by_keras = lenet_tf.keras.optimizer(keras.optimizers.SGD(0.5))
    outside = lenet_tf.SGD(tf.Variable(0.5))
    runs = []
    for optimizer in (inside, outside, by_keras):
        trainer = make_trainer(strategy, optimizer)
        action = ReduceOnPlateau("loss", 0.5, 1, min_change=0.5)
        history = trainer.fit(data(), epochs=4, actions=[action])
        runs.append((history["loss"], rate_of(trainer)))
    assert runs[0] == runs[1]
    assert runs[0] == (pytest.approx(runs[2][0]), runs[2][1])
    assert runs[0][1] < 0.5


def test_the_rate_of_one_update_of_several_is_lowered() -> None:
    model = Line()
    updates = {
        "slope": Update([model.w], lenet_tf.SGD(tf.Variable(0.1))),
        "bias": Update([model.b], lenet_tf.SGD(tf.Variable(0.1))),
    }
    trainer = Trainer(model, updates, forward)
    with pytest.raises(lenet_tf.UsageError, match="give one of slope, bias"):
        trainer.fit(data(), epochs=1, actions=[ReduceOnPlateau("loss")])
    action = ReduceOnPlateau("loss", 0.5, 1, min_change=9.0, update="bias")
    trainer.fit(data(), epochs=3, actions=[action])
    assert rate_of(trainer, "slope") == np.float32(0.1)
    assert rate_of(trainer, "bias") == np.float32(0.1) / 4


def test_a_resumed_run_ends_at_the_row_of_one_that_was_never_stopped(
    tmp_path: pathlib.Path,
) -> None:
    def patience() -> list[Action]:
        return [lenet_tf.at(every_row(), Patience("size", 3, "min", 0.02))]

    expected = fit(make_trainer(), patience(), epochs=20)
    rows = len(expected["loss"])
    assert 5 <= rows < 20
    with pytest.raises(KeyboardInterrupt):
        fit(make_trainer(), patience(), tmp_path, epochs=20, stop=3 * rows - 3)
    assert fit(make_trainer(), patience(), tmp_path, epochs=20) == expected


def test_an_action_on_another_metric_starts_afresh_when_a_run_goes_on(
    tmp_path: pathlib.Path,
) -> None:
    fit(make_trainer(), [Patience("loss", 50)], tmp_path, epochs=2)
    other, same = Patience("size", 50, "min"), Patience("loss", 50)
    history = fit(make_trainer(), [other], tmp_path, epochs=3)
    assert other.state()["best"] == history["size"][2]
    fit(make_trainer(), [same], tmp_path, epochs=3)
    assert same.state()["best"] is None  # what "size" left is not of "loss"


def test_a_run_ends_when_it_has_taken_the_time_of_all_its_processes(
    tmp_path: pathlib.Path,
) -> None:
    trainer = make_trainer()
    trainer.record.seconds = 3600.0  # of earlier processes
    fit(trainer, [StopAfter(4600.0 * 24)], tmp_path / "long", epochs=1)
    assert trainer.state.step.numpy() == 3
    fit(trainer, [StopAfter(3600.0)], tmp_path / "short", epochs=2)
    assert trainer.state.step.numpy() == 4  # after one inner loop
    latest = tf.train.latest_checkpoint(tmp_path / "short" / "checkpoints")
    assert latest is not None


def test_a_run_that_is_given_more_time_goes_on(tmp_path: pathlib.Path) -> None:
    def step_after(seconds: float) -> int:
        trainer = make_trainer()
        fit(trainer, [StopAfter(seconds)], tmp_path, epochs=2)
        return int(trainer.state.step.numpy())

    first = step_after(1e-9)
    assert first < 6
    assert step_after(1e-9) == first  # it has ended
    assert step_after(3600.0) == 6
