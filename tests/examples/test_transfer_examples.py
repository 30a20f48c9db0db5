"""The examples on a network that was trained before, or comes from Keras, run."""

from __future__ import annotations

import pathlib

import keras
import numpy as np
from programs import ROOT, run


def test_fine_tuning_reports_each_stage(tmp_path: pathlib.Path) -> None:
    script = str(ROOT / "examples" / "fine_tuning.py")
    flags = ["--examples=20", "--body_examples=100", "--epochs=1"]
    finished = run(script, f"--workdir={tmp_path}", *flags)
    assert finished.status == 0, finished.stderr
    stages = [line.split(":")[0] for line in finished.stdout.splitlines()[-3:]]
    assert stages == ["head", "all", "alone"]


def test_a_keras_application_takes_weights_and_is_saved_as_a_keras_model(
    tmp_path: pathlib.Path,
) -> None:
    weights = tmp_path / "mobilenet.weights.h5"
    keras.applications.MobileNet(
        (128, 128, 3), alpha=0.25, include_top=False, weights=None, pooling="avg"
    ).save_weights(weights)
    script = str(ROOT / "examples" / "keras_application.py")
    flags = [f"--weights={weights}", "--examples=40", "--epochs=1", "--replicas=1"]
    finished = run(script, f"--workdir={tmp_path}", *flags)
    assert finished.status == 0, finished.stderr
    assert "val_accuracy" in finished.stdout
    network = keras.saving.load_model(tmp_path / "network.keras")
    logits = network.predict(np.zeros([1, 32, 32, 3], np.uint8), verbose=0)
    assert logits.shape == (1, 10)
