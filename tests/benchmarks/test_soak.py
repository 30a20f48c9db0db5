"""The soak itself, in small."""

from __future__ import annotations

import re

from programs import BENCHMARKS, run


def test_the_soak_kills_and_finds_the_ends_identical() -> None:
    flags = ["--kills=2", "--epochs=3", "--replicas=1", "--seconds=1", "--seed=1"]
    finished = run(str(BENCHMARKS / "soak.py"), *flags)
    assert finished.status == 0, finished.stderr
    *kills, ended, counts, lost, verdict = finished.stdout.splitlines()
    assert len(kills) == 2
    for number, line in enumerate(kills, 1):
        assert re.fullmatch(
            rf"kill   {number}: SIG(KILL|TERM|INT) at step \d+, newest checkpoint \d+, "
            r"lost \d+, exit status -?\d+",
            line,
        )
    assert ended == "run 1 has ended: identical"
    assert re.match(r"2 kills, \d resumes, 1 runs of 3 epochs", counts)
    assert re.match(r"\d+ steps were done beyond the newest checkpoint", lost)
    assert verdict.startswith("1 of 1 ends identical to the undisturbed run (")
    assert verdict.endswith("bit for bit): PASSED")
