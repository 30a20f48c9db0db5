"""What each of several workers reads: real processes that meet over loopback."""

from __future__ import annotations

import pathlib

import numpy as np
import own_rows
from local_cluster import workers

from lenet_tf import make_strategy


def test_each_of_two_workers_reads_half_of_the_examples(tmp_path: pathlib.Path) -> None:
    script = str(pathlib.Path(own_rows.__file__))
    with workers(script, str(tmp_path / "end")) as programs:
        for program in programs:
            finished = program.wait()
            assert finished.status == 0, finished.stderr
    both = [dict(np.load(f"{tmp_path / 'end'}.{i}.npz")) for i in range(2)]
    alone = own_rows.train(make_strategy(1))
    for name, expected in alone.items():
        if name.startswith("read to"):
            halves = [end[name] for end in both]
            assert [len(half) for half in halves] == [32, 32]
            assert sorted(np.concatenate(halves)) == sorted(expected) == list(range(64))
            continue
        for end in both:
            np.testing.assert_allclose(end[name], expected, rtol=0, atol=1e-6)
