"""Disks, folders, paths and files that are not as they should be: one line each."""

from __future__ import annotations

import ctypes
import json
import multiprocessing.connection
import os
import pathlib
import resource
import shutil
import subprocess
import sys

import programs
import pytest
from idx_writer import write_idx_dir

from lenet_tf.data import datasets
from lenet_tf.errors import DataError, UsageError


def load(
    name: str = "mnist",
    data_dir: pathlib.Path | str | None = None,
    idx_dir: pathlib.Path | str | None = None,
    *,
    file_size: int | None = None,
    unprivileged: bool = False,
    environment: dict[str, str] | None = None,
    path: str = "",
) -> str:
    """Loads a dataset in a process of its own; returns its error, or its size.

    Args:
      name: Its name.
      data_dir: Where it is.
      idx_dir: What it is prepared from.
      file_size: Largest size of a file; beyond, writing fails as on a full disk.
      unprivileged: Whether root, too, is kept from what the modes of files forbid.
      environment: Variables to set.
      path: Folder to import from.
    """
    receiver, sender = programs._context.Pipe(duplex=False)
    arguments = (sender, name, data_dir, idx_dir, file_size, unprivileged)
    process = programs._context.Process(
        target=_load, args=(*arguments, environment or {}, path)
    )
    process.start()
    sender.close()
    try:
        said = receiver.recv()
    finally:
        process.join()
    assert "\n" not in said
    return said


def _load(
    sender: multiprocessing.connection.Connection,
    name: str,
    data_dir: str | None,
    idx_dir: str | None,
    file_size: int | None,
    unprivileged: bool,
    environment: dict[str, str],
    path: str,
) -> None:
    os.environ.update(environment)
    sys.path.insert(0, path)
    if unprivileged:
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # capset(2), version 3
        if ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)()):
            raise RuntimeError("the privileges could not be given up")
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    try:
        splits = datasets.load(
            name, data_dir=data_dir, idx_dir=idx_dir, validation_examples=0
        )
        sender.send(str(len(splits.train)))
    except UsageError as error:
        sender.send(str(error))


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="capset is Linux's")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A data_dir with a small mnist."""
    folder = tmp_path_factory.mktemp("prepared")
    write_idx_dir(folder / "idx")
    datasets.prepare("mnist", data_dir=folder / "data", idx_dir=folder / "idx")
    return folder / "data"


@pytest.fixture
def data_dir(prepared: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of it."""
    return pathlib.Path(shutil.copytree(prepared, tmp_path / "data"))


def test_preparing_leaves_the_dataset_and_the_lock_only(prepared: pathlib.Path) -> None:
    assert {p.name for p in prepared.iterdir()} == {"mnist", ".lenet_tf-mnist.lock"}
    assert [p.name for p in (prepared / "mnist").iterdir()] == ["3.0.1"]


def test_a_disk_that_is_full_while_preparing_is_one_line_and_leaves_nothing(
    tmp_path: pathlib.Path,
) -> None:
    write_idx_dir(tmp_path / "idx")
    data_dir = tmp_path / "data"
    # Beyond this size of a file, writing fails as on a full disk.
    said = load("mnist", data_dir, tmp_path / "idx", file_size=4096)
    assert said == f"mnist cannot be written to {data_dir}: File too large"
    assert [p.name for p in data_dir.iterdir()] == [".lenet_tf-mnist.lock"]
    assert load("mnist", data_dir, tmp_path / "idx") == "40"


@pytest.mark.parametrize("options", ["size=24k", "size=4m,nr_inodes=6"])
def test_a_full_file_system_is_one_line(tmp_path: pathlib.Path, options: str) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    write_idx_dir(tmp_path / "idx")
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(mount)]
    try:
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("needs the right to mount a file system")
    except FileNotFoundError:
        pytest.skip("needs the right to mount a file system")
    try:
        said = load("mnist", mount, tmp_path / "idx")
        assert said == f"mnist cannot be written to {mount}: No space left on device"
        assert not list(mount.glob("mnist/*"))
    finally:
        subprocess.run(["umount", str(mount)], check=True)


@linux_only
@pytest.mark.parametrize("folder", [".", "mnist", "mnist/3.0.1"])
def test_folders_that_cannot_be_read_are_not_called_damaged(
    data_dir: pathlib.Path, folder: str
) -> None:
    (data_dir / folder).chmod(0)
    try:
        said = load("mnist", data_dir, unprivileged=True)
    finally:
        (data_dir / folder).chmod(0o755)
    assert said.endswith("cannot be read: Permission denied")


@linux_only
def test_files_that_cannot_be_read_are_not_called_damaged(
    data_dir: pathlib.Path,
) -> None:
    (file,) = data_dir.glob("mnist/*/*train.tfrecord*")
    file.chmod(0)
    said = load("mnist", data_dir, unprivileged=True)
    assert said.endswith("3.0.1 cannot be read: Permission denied")


@linux_only
def test_a_home_that_cannot_be_read_is_one_line(tmp_path: pathlib.Path) -> None:
    home = tmp_path / "home"
    home.mkdir(0)
    said = load(
        "mnist", unprivileged=True, environment={"HOME": str(home), "TFDS_DATA_DIR": ""}
    )
    assert said.startswith(str(home)) and said.endswith("Permission denied")


@pytest.mark.parametrize(
    ("data_dir", "message"),
    [
        ("~nosuch/x", "data_dir is ~nosuch/x: it must be a directory"),
        ("x" * 300, "data_dir is xxx.*File name too long"),
        ("x/" * 2500, "data_dir is x/x.*File name too long"),
        ("a\0b", "data_dir is .*null"),
        ("a\udcffb", r"data_dir is 'a\\udcffb': it must be UTF-8"),
        ("gs://bucket/x", "it must be a directory of this machine"),
    ],
    ids=["user", "300", "5000", "null", "bytes", "bucket"],
)
def test_a_data_dir_that_cannot_be_is_refused_in_one_line(
    data_dir: str, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        datasets.load("mnist", data_dir=data_dir)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("idx_dir", ["~nosuch/x", "x" * 300, "x/" * 2500, "a\0b"])
def test_an_idx_dir_that_cannot_be_is_refused_in_one_line(
    tmp_path: pathlib.Path, idx_dir: str
) -> None:
    with pytest.raises(
        DataError, match=r"idx_dir is .*: it must be a folder"
    ) as caught:
        datasets.load("mnist", data_dir=tmp_path, idx_dir=idx_dir)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "name", ["mnïst", "数字", "mnist:3.0.\u0661", "a\udcff", "x" * 5000]
)
def test_a_name_that_no_dataset_has_is_refused_in_one_line(
    tmp_path: pathlib.Path, name: str
) -> None:
    with pytest.raises(DataError, match="TFDS has none of that name") as caught:
        datasets.load(name, data_dir=tmp_path)
    assert len(str(caught.value).encode()) < 600


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_lock_that_is_no_regular_file_is_refused(
    tmp_path: pathlib.Path, kind: str
) -> None:
    write_idx_dir(tmp_path / "idx")
    data_dir, target = tmp_path / "data", tmp_path / "target"
    lock = data_dir / ".lenet_tf-mnist.lock"
    data_dir.mkdir()
    target.write_text("precious")
    if kind == "link":
        lock.symlink_to(target)
    elif kind == "pipe":
        os.mkfifo(lock)
    else:
        lock.mkdir()
    said = load("mnist", data_dir, tmp_path / "idx")
    assert said == f"{lock} is not a regular file: remove it"
    assert target.read_text() == "precious"
    assert [p.name for p in data_dir.iterdir()] == [lock.name]


def test_what_is_in_the_lock_file_stays(tmp_path: pathlib.Path) -> None:
    write_idx_dir(tmp_path / "idx")
    (tmp_path / ".lenet_tf-mnist.lock").write_text("precious")
    datasets.prepare("mnist", data_dir=tmp_path, idx_dir=tmp_path / "idx")
    assert (tmp_path / ".lenet_tf-mnist.lock").read_text() == "precious"


def strangers(data_dir: pathlib.Path, old: str, new: str) -> str:
    """Makes mnist a dataset that TFDS has no code for, with another feature class."""
    folder = data_dir / "stranger"
    (data_dir / "mnist").rename(folder)
    for path in folder.glob("*/mnist*"):
        path.rename(path.with_name(path.name.replace("mnist", "stranger")))
    for path in folder.glob("*/dataset_info.json"):
        info = json.loads(path.read_text())
        path.write_text(json.dumps(info | {"name": "stranger"}))
    for path in folder.glob("*/features.json"):
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
    return "stranger"


def test_a_dataset_without_code_in_tfds_can_be_read(data_dir: pathlib.Path) -> None:
    name = strangers(data_dir, "Image", "Image")
    assert load(name, data_dir) == "40"


@pytest.mark.parametrize(
    "python_class",
    [
        "tensorflow_datasets.core.features.features_dict.FeaturesDict",
        "tensorflow_datasets.core.features.image_feature.Image",
    ],
)
def test_a_strangers_data_dir_cannot_run_code(
    data_dir: pathlib.Path, tmp_path: pathlib.Path, python_class: str
) -> None:
    mark = tmp_path / "mark"
    code = tmp_path / "code"
    code.mkdir()
    (code / "evil.py").write_text(f"open({str(mark)!r}, 'w')\n")
    name = strangers(data_dir, python_class, "evil.Feature")
    said = load(name, data_dir, path=str(code))
    assert "features.json names the class 'evil.Feature': only TFDS's own" in said
    assert not mark.exists()
    # The same by a version, which has TFDS read the files rather than its code.
    (data_dir / "stranger").rename(data_dir / "mnist")
    for path in data_dir.glob("mnist/*/*stranger*"):
        path.rename(path.with_name(path.name.replace("stranger", "mnist")))
    said = load("mnist:3.0.1", data_dir, path=str(code))
    assert "only TFDS's own" in said and not mark.exists()


def test_a_feature_class_that_is_not_there_is_one_line(data_dir: pathlib.Path) -> None:
    name = strangers(data_dir, "image_feature.Image", "no_such_module.Image")
    said = load(name, data_dir)
    assert said.startswith(f"dataset is 'stranger' in {data_dir}: ")
    assert "no_such_module" in said and len(said) < 1000


def test_tfds_that_is_not_installed_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(DataError, match=r"pip install 'lenet_tf\[data\]'") as caught:
        datasets.load("mnist")
    assert "\n" not in str(caught.value)
