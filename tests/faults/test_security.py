"""Nothing that is loaded can execute code."""

from __future__ import annotations

import ast
import json
import pathlib
import pickle

import pytest
import tensorflow as tf

import lenet_tf
from lenet_tf.checkpoint.restore import find_checkpoint
from lenet_tf.checkpoint.storage import find_damage
from lenet_tf.experiment.runs import evaluate

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("lenet_tf/**/*.py"), *ROOT.glob("scripts/*.py")])
MODULES = {"pickle", "cPickle", "_pickle", "dill", "joblib", "cloudpickle", "marshal"}
MODULES |= {"shelve", "yaml", "imp"}
CALLS = {"eval", "exec", "compile", "__import__"}
KEYWORDS = {"allow_pickle", "shell"}


def suspects(tree: ast.AST) -> list[str]:
    """What in a program could execute what it has read."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module] * ((node.module or "").split(".")[0] in MODULES)
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in CALLS:
                found.append(node.func.id)
            found += [k.arg for k in node.keywords if k.arg in KEYWORDS]
        elif isinstance(node, ast.Attribute) and node.attr in (
            "extractall",
            "eval_str",
        ):
            found.append(node.attr)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_can_execute_what_it_reads(path: pathlib.Path) -> None:
    assert suspects(ast.parse(path.read_text())) == []


def test_the_check_finds_what_it_looks_for() -> None:
    code = (
        "import pickle\nfrom yaml import load\nexec(x)\nnp.load(f, allow_pickle=True)"
    )
    assert suspects(ast.parse(code)) == ["pickle", "yaml", "exec", "allow_pickle"]


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: pathlib.Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return pathlib.Path.touch, (self.mark,)


def test_a_pickle_in_place_of_any_file_of_a_workdir_is_only_an_error(
    tmp_path: pathlib.Path,
) -> None:
    mark = tmp_path / "mark"
    bomb = pickle.dumps(Bomb(mark))
    for name in (
        "config.json",
        "best/best.json",
        "checkpoints/step-1.index",
        "checkpoints/step-1.data-00000-of-00001",
        "checkpoints/checkpoint",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bomb)
    for read in (
        lambda: evaluate(tmp_path),
        lambda: find_checkpoint(tmp_path),
        lambda: find_checkpoint(tmp_path, "best"),
    ):
        with pytest.raises(lenet_tf.UsageError) as error:
            read()
        assert "\n" not in str(error.value)
    assert find_damage(str(tmp_path / "checkpoints" / "step-1"))
    assert not mark.exists()
    pickle.loads(bomb)
    assert mark.exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"__class__": "x"}, "there is no setting __class__"),
        (
            {"epochs": "__import__('os').system('true')"},
            "epochs is .*: it must be a whole number",
        ),
        ({"epochs": True}, "epochs is True: it must be a whole number"),
        ({"epochs": 3.0}, "epochs is 3.0: it must be a whole number"),
        ({"learning_rate": None}, "learning_rate is None: it must be a number"),
        ({"learning_rate": float("nan")}, "learning_rate is nan: it must be a number"),
        ({"clip_norm": "1"}, "clip_norm is '1': it must be a number"),
        ({"dataset": ["mnist"]}, "dataset is .*: it must be text"),
        ({"seed": 2**40}, "seed is 1099511627776: it must be a whole number"),
        ({"background_save": 1}, "background_save is 1: it must be true or false"),
    ],
)
def test_settings_are_only_settings(setting: dict, message: str) -> None:
    read = json.loads(json.dumps({**lenet_tf.Config().as_dict(), **setting}))
    with pytest.raises(lenet_tf.UsageError, match=message):
        lenet_tf.Config.from_dict(read)


def test_a_checkpoint_of_another_program_is_an_error(tmp_path: pathlib.Path) -> None:
    """Its graph and its strings are read as data."""
    other = tf.train.Checkpoint(model=tf.train.Checkpoint(w=tf.Variable("os.system")))
    path = other.write(str(tmp_path / "step-1"))
    with pytest.raises(
        lenet_tf.errors.CheckpointError, match="does not fit this model"
    ):
        lenet_tf.checkpoint.restore_model(lenet_tf.LeNet5(), path)
