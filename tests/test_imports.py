"""Holds the house together: which file may import which, read from the sources.

An import counts wherever it stands: at the top, in a function, under `TYPE_CHECKING`.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import pathlib
import pkgutil
import types
from collections.abc import Iterator

import pytest

import lenet_tf

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "lenet_tf"
# From the ground up. A room may import those of the lines above its own, not its
# neighbours in the line; the files of the ground may import each other.
GROUND = {"errors", "files", "registry", "signals"}
LAYERS = [
    GROUND,
    {"parallel"},
    {"optim", "nn", "data"},
    {"checkpoint", "export"},
    {"train"},
    {"report", "pictures"},
    {"experiment"},
    {"demo"},
    {"keras"},  # the adapter: nothing imports it
    {"cli", "__main__"},
]
LEVELS = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
LINES = 300


@dataclasses.dataclass(frozen=True)
class Import:
    """One imported module, or a name that may be one.

    Attributes:
      module: Its full name.
      place: Whether it stands at the file's top ("top"), in a function ("function") or
        under `if TYPE_CHECKING` ("types").
      line: Its line in the file.
    """

    module: str
    place: str
    line: int


def module_name(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def read_imports(
    node: ast.AST, package: list[str], place: str = "top"
) -> Iterator[Import]:
    """Yields the imports below a node of a file in a package."""
    if isinstance(node, ast.Import):
        yield from (Import(name.name, place, node.lineno) for name in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = package[: len(package) - node.level + 1] if node.level else []
        module = ".".join([*base, *([node.module] if node.module else [])])
        for name in node.names:
            inner = f"{module}.{name.name}"
            known = inner if inner in FILES else module
            yield Import(known, place, node.lineno)
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        place = "function"
    elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        place = "types"
    for child in ast.iter_child_nodes(node):
        yield from read_imports(child, package, place)


def imports_of(module: str) -> list[Import]:
    path = FILES[module]
    parts = module.split(".")
    package = parts if path.name == "__init__.py" else parts[:-1]
    return list(read_imports(ast.parse(path.read_text()), package))


IMPORTS = {module: imports_of(module) for module in FILES}
INNER = {
    module: {i.module for i in imports if i.module.split(".")[0] == "lenet_tf"}
    for module, imports in IMPORTS.items()
}


def room(module: str) -> str:
    """Returns the package or file right below lenet_tf; "" for lenet_tf itself."""
    return [*module.split("."), ""][1]


def may_import(here: str, there: str) -> bool:
    """Whether a file of one room may import one of another."""
    if here == there or {here, there} <= GROUND:
        return True
    if there == "":  # the names of all rooms together
        return here in ("cli", "__main__")
    return LEVELS[there] < LEVELS[here] and there != "keras"


@pytest.mark.parametrize(
    ("here", "there", "allowed"),
    [
        ("train", "optim", True),
        ("train", "train", True),
        ("files", "errors", True),
        ("keras", "train", True),
        ("errors", "parallel", False),
        ("nn", "data", False),
        ("optim", "train", False),
        ("experiment", "keras", False),
        ("train", "", False),
    ],
)
def test_the_rule_itself(here: str, there: str, allowed: bool) -> None:
    assert may_import(here, there) == allowed


def test_imports_are_found_wherever_they_stand() -> None:
    source = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from lenet_tf.train import trainer
def f():
    import lenet_tf.data.batches
    from . import layers
"""
    found = list(read_imports(ast.parse(source), ["lenet_tf", "nn"]))[1:]
    assert [(i.module, i.place) for i in found] == [
        ("lenet_tf.train.trainer", "types"),
        ("lenet_tf.data.batches", "function"),
        ("lenet_tf.nn.layers", "function"),
    ]


def test_every_room_has_its_place() -> None:
    assert {room(module) for module in FILES} - {""} <= set(LEVELS)


def test_imports_run_one_way() -> None:
    wrong = [
        f"{module} imports {other}"
        for module in FILES
        if module != "lenet_tf"
        for other in INNER[module]
        if not may_import(room(module), room(other))
    ]
    assert not wrong


def test_no_file_imports_itself_in_a_circle() -> None:
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        for other in sorted(INNER.get(module, ())):
            visit(other, [*path, module])
        done.add(module)

    for module in FILES:
        visit(module, [])


def importers(*packages: str, places: tuple[str, ...]) -> list[str]:
    return [
        f"{module}:{i.line} imports {i.module}"
        for module, imports in IMPORTS.items()
        for i in imports
        for package in packages
        if f"{i.module}.".startswith(f"{package}.") and i.place in places
    ]


ANYWHERE = ("top", "function", "types")


def test_flags_are_read_in_the_programs_only() -> None:
    found = importers("absl.flags", "absl.app", "argparse", places=ANYWHERE)
    found += [
        f"{module} imports flags from absl"
        for module, path in FILES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "absl"
        if {"flags", "app"} & {name.name for name in node.names}
    ]
    assert [line for line in found if not line.startswith("lenet_tf.cli")] == []


def test_no_other_framework_is_imported() -> None:
    found = importers("keras", "tf_keras", "torch", "jax", places=ANYWHERE)
    adapter = ("lenet_tf.keras:", "lenet_tf.keras.")
    assert [line for line in found if not line.startswith(adapter)] == []


def test_what_the_extras_bring_is_imported_when_it_is_used() -> None:
    packages = ("jinja2", "matplotlib", "tensorflow_datasets", "importlib_resources")
    packages += ("PIL", "requests", "scipy")
    at_once = {
        i.module for found in IMPORTS.values() for i in found if i.place == "top"
    }
    found = importers(*packages, places=("top",))
    # A file that is itself imported in functions only may do so at its top, and so may
    # these rooms.
    rooms = ("lenet_tf.pictures", "lenet_tf.demo")
    found = [line for line in found if not line.startswith(rooms)]
    assert [line for line in found if line.split(":")[0] in at_once] == []
    found = importers(*rooms, places=("top",))
    assert [line for line in found if not line.startswith(rooms)] == []


def stub_names() -> list[str]:
    """Returns the names that `lenet_tf/__init__.pyi` lists."""
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text())
    return [
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]


def test_every_name_of_the_stub_is_there() -> None:
    names = stub_names()
    assert len(names) == len(set(names))
    assert [name for name in names if not hasattr(lenet_tf, name)] == []
    assert set(names) <= set(dir(lenet_tf))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = lenet_tf.no_such_name  # type: ignore[attr-defined]


def test_the_names_at_the_top_are_few() -> None:
    names = stub_names()
    packages = [n for n in names if isinstance(getattr(lenet_tf, n), types.ModuleType)]
    assert 20 <= len(names) - len(packages) <= 40, sorted(set(names) - set(packages))


def test_no_name_hides_a_module() -> None:
    # The programs define their flags at the import, each for itself.
    modules = [
        found.name
        for found in pkgutil.walk_packages(lenet_tf.__path__, "lenet_tf.")
        if room(found.name) not in ("cli", "__main__", "keras")
    ]
    loaded = {name: importlib.import_module(name) for name in modules}
    hidden = []
    for name, module in loaded.items():
        parent, _, child = name.rpartition(".")
        owner = loaded.get(parent, lenet_tf)
        if getattr(owner, child) is not module:
            hidden.append(f"{parent}.{child} is {getattr(owner, child)}")
    assert not hidden


def test_no_file_is_long() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for folder in ("lenet_tf", "benchmarks", "scripts", "examples")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {path: n for path, n in lengths.items() if n > LINES} == {}
