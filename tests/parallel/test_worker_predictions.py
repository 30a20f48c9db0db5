"""Predictions of several workers: real processes that meet over loopback."""

from __future__ import annotations

import pathlib

import numpy as np
import predictions
from local_cluster import workers

from lenet_tf import make_strategy


def test_every_worker_gets_all_rows_and_strings_are_refused(
    tmp_path: pathlib.Path,
) -> None:
    script = str(pathlib.Path(predictions.__file__))
    with workers(script, str(tmp_path / "rows")) as programs:
        finished = [program.wait() for program in programs]
    for one in finished:
        assert one.status == 0, one.stderr
        assert one.stdout.startswith("the function returned a tensor of dtype string")
    alone = predictions.predict(make_strategy(1))
    for worker in range(2):
        rows = dict(np.load(f"{tmp_path / 'rows'}.{worker}.npz"))
        assert rows.keys() == alone.keys()
        for name, value in alone.items():
            if name != "half":
                assert rows[name].dtype == value.dtype
            np.testing.assert_allclose(
                rows[name].astype(np.float64), value.astype(np.float64), atol=1e-2
            )
            if name in ("image", "noise", "class", "right"):
                np.testing.assert_array_equal(rows[name], value)
        np.testing.assert_allclose(rows["logits"], alone["logits"], atol=1e-5)
