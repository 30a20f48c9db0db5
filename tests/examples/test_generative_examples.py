"""The examples that generate digits run, and a run goes on where it stopped."""

from __future__ import annotations

import pathlib

from programs import ROOT, Finished, run


def run_example(name: str, data_dir: pathlib.Path, *flags: str) -> Finished:
    script = str(ROOT / "examples" / name)
    finished = run(script, *flags, environment={"TFDS_DATA_DIR": str(data_dir)})
    assert finished.status == 0, finished.stderr
    return finished


def test_vae_reports_both_terms_and_draws(
    tmp_path: pathlib.Path, few_digits: pathlib.Path
) -> None:
    flags = [f"--workdir={tmp_path}", "--epochs=1"]
    stdout = run_example("vae.py", few_digits, *flags).stdout
    assert "val_kl" in stdout
    assert "'reconstruction': " in stdout
    assert (tmp_path / "vae.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "best" / "best.json").exists()


def test_gan_draws_the_same_samples_after_a_resume(
    tmp_path: pathlib.Path, few_digits: pathlib.Path
) -> None:
    for workdir, epochs in (("once", 2), ("resumed", 1), ("resumed", 2)):
        flags = [f"--workdir={tmp_path / workdir}", f"--epochs={epochs}"]
        finished = run_example("gan.py", few_digits, *flags)
    assert "epoch 1/2" not in finished.stdout
    assert "critic_loss" in finished.stdout
    once, resumed = (
        (tmp_path / workdir / "samples.png").read_bytes()
        for workdir in ("once", "resumed")
    )
    assert once == resumed
