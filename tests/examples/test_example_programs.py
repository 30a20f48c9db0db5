"""The examples run, on little data."""

import pathlib

from programs import ROOT, run


def test_segmentation_draws_what_it_found(tmp_path: pathlib.Path) -> None:
    flags = [f"--workdir={tmp_path}", "--examples=64", "--epochs=1"]
    finished = run(str(ROOT / "examples" / "segmentation.py"), *flags)
    assert finished.status == 0, finished.stderr
    assert "val_iou" in finished.stdout
    assert (tmp_path / "predictions.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "best" / "best.json").exists()
