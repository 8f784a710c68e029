"""The order of the modules: each imports from rows above its own, and heavy things stay local."""

import ast
import fnmatch
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ser_jax

ROOT = Path(ser_jax.__file__).parent

# Rooms and the files that stand beside them. What stands in one row does not import each other;
# within a room any order is right that is no circle.
ROWS = [
    ["errors"],
    ["files"],
    ["config"],
    ["progress", "machine"],
    ["multihost"],
    ["metrics", "statistics", "audio"],
    ["data"],
    ["features"],
    ["augment"],
    ["models"],
    ["wav2vec2"],
    ["training"],
    ["systems"],
    ["run"],
    ["grid", "inference"],
    ["export"],
    ["report"],
    ["api"],
    ["cli"],
    ["__main__"],
]
ROW = {name: number for number, row in enumerate(ROWS) for name in row}

PURE = [
    "metrics", "statistics", "audio.samples", "features.chroma", "features.cmvn",
    "features.frontend", "features.normaliser", "augment.*", "models.*", "training.losses",
    "training.state", "training.step", "training.layouts", "training.compiled_step",
    "training.programs", "grid.vmapped", "grid.grid_programs", "grid.run_progress",
]  # fmt: skip
# What only these modules may import (patterns).
RESERVED = {
    "transformers": ["wav2vec2.*"],
    "soundfile": ["audio.*"],
    "audioread": ["audio.*"],
    "jsonargparse": ["cli.parser", "cli.command_keys"],
    "grain": ["features.streaming"],
    "rich": ["progress", "cli.printing", "report.*"],
}
# Modules of classes derived from transformers' own are imported late themselves.
LATE = [
    *(f"wav2vec2.{name}" for name in ("blocks", "feature_encoder", "contrastive", "encoder")),
    "wav2vec2.classifier",
]
LAZY = [
    *(f"ser_jax.{name}" for name in LATE),
    "grain",
    "transformers",
    "librosa",
    "matplotlib",
    "jinja2",
    "markupsafe",
    "tensorflow_datasets",
    "rich",
    "sklearn",
    "hmmlearn",
    "scipy",
    "threadpoolctl",
]
FILES = ["logging", "pathlib", "shutil", "tempfile", "yaml", "io", "ser_jax.files", "soundfile"]


def list_modules() -> dict[str, ast.Module]:
    modules = {}
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if name != "__init__":
            modules[name] = ast.parse(path.read_text())
    return modules


MODULES = list_modules()


def find_imports(tree: ast.AST) -> Iterator[str]:
    """Full names of what is imported; `from a import b` gives a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports here are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def find_top_imports(tree: ast.Module) -> Iterator[str]:
    """Those that run when the module is imported."""
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) and "TYPE_CHECKING" not in ast.dump(
            node
        ):
            yield from find_imports(node)


def matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatch(name, p) or f"{name}.*" == p for p in patterns)


def within(full_name: str, package: str) -> bool:
    return full_name == package or full_name.startswith(f"{package}.")


@pytest.mark.parametrize("name", MODULES)
def test_module_imports_only_from_rows_above_its_own(name):
    own = name.split(".")[0]
    assert own in ROW, f"give {own} a row in ROWS"
    for full_name in find_imports(MODULES[name]):
        parts = full_name.split(".")
        if parts[0] != "ser_jax" or parts[1] == "__version__" or parts[1] == own:
            continue
        assert ROW[parts[1]] < ROW[own], f"{name} imports {full_name}"


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules of which each imports the next one, and the last the first; empty without one."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return path[path.index(name) :]
        for other in sorted(graph[name]) if name not in done else ():
            if circle := walk(other, [*path, name]):
                return circle
        done.add(name)
        return []

    return next((circle for name in graph if (circle := walk(name, []))), [])


def test_no_modules_import_each_other_in_a_circle():
    """Inside a package neither, nor by imports inside functions."""
    trees = {name.removesuffix(".__init__"): tree for name, tree in MODULES.items()}

    def find_module(full_name: str) -> str:
        name = full_name.removeprefix("ser_jax.")
        while name and name not in trees:
            name = name.rpartition(".")[0]
        return name

    graph = {
        name: {find_module(f) for f in find_imports(tree) if within(f, "ser_jax")} - {"", name}
        for name, tree in trees.items()
    }
    assert not find_circle(graph)


def test_a_circle_of_imports_is_found_wherever_it_lies():
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert find_circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize("name", [name for name in MODULES if matches(name, PURE)])
def test_numeric_module_touches_no_file_and_no_log(name):
    touched = [f for f in find_imports(MODULES[name]) for bad in FILES if within(f, bad)]
    assert not touched
    calls = [node.func for node in ast.walk(MODULES[name]) if isinstance(node, ast.Call)]
    assert not {f.id for f in calls if isinstance(f, ast.Name)} & {"open", "print"}


@pytest.mark.parametrize("package", RESERVED)
def test_package_is_imported_only_where_it_belongs(package):
    users = {
        m for m, tree in MODULES.items() if any(within(f, package) for f in find_imports(tree))
    }
    assert not {m for m in users if not matches(m, RESERVED[package])}


@pytest.mark.parametrize("name", MODULES)
def test_heavy_package_is_imported_inside_functions_only(name):
    heavy = [f for f in find_top_imports(MODULES[name]) for package in LAZY if within(f, package)]
    assert not heavy or matches(name, LATE)


@pytest.mark.parametrize("name", [name for name in MODULES if name != "machine.jax_private"])
def test_names_that_jax_does_not_promise_are_used_in_one_module(name):
    text = (ROOT / f"{name.replace('.', '/')}.py").read_text()
    if name == "multihost.sharing":  # documented, with examples, though named experimental
        text = text.replace("from jax.experimental import multihost_utils", "")
    assert not re.search(r"jax\._src|jax\.experimental|from jax import .*(_src|experimental)", text)


def list_public_names(tree: ast.Module) -> Iterator[str]:
    """Functions, classes and constants of a module that others may use."""
    for node in tree.body:
        targets: list[ast.expr] = []
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield from [node.name] if not node.name.startswith("_") else []
        elif isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        names = (name.id for target in targets for name in ast.walk(target)
                 if isinstance(name, ast.Name))  # fmt: skip
        yield from (name for name in names if not name.startswith("_"))


def test_a_public_name_exists_once():
    homes: dict[str, list[str]] = {}
    for module, tree in MODULES.items():
        for name in set(list_public_names(tree)):
            homes.setdefault(name, []).append(module)
    assert not {name: where for name, where in homes.items() if len(where) > 1}


def test_a_file_name_exists_once():
    files = [name.rpartition(".")[2] for name in MODULES if not name.endswith("__init__")]
    assert not {name for name in files if files.count(name) > 1}


def test_everything_public_of_the_package_is_found():
    assert all(getattr(ser_jax, name) is not None for name in dir(ser_jax))
