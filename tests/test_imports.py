"""The import graph of the two programs, read from their source: imports inside functions count too."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
Graph = Mapping[str, set[str]]


def modules(root: Path, program: str) -> dict[str, Path]:
    """Each module's dotted name and its file; a package goes by the name of its folder."""
    names = {path: path.relative_to(root).with_suffix("").parts for path in (root / program).rglob("*.py")}
    return {".".join(parts[:-1] if parts[-1] == "__init__" else parts): path for path, parts in names.items()}


def imported(name: str, path: Path, on_loading: bool = False) -> Iterator[str]:
    """Every name that the module may import, a type checker's imports too; several for one line.

    With ``on_loading`` only what is imported as soon as the module is: neither in functions nor for types.
    """
    package = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if on_loading else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            outer = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*outer, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
            yield base


def module_graph(root: Path, program: str, on_loading: bool = False) -> Graph:
    """Which modules a module imports. A package whose submodule is imported counts only when it is named."""
    known = modules(root, program)
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        found = list(imported(name, path, on_loading))
        submodules = {one.rpartition(".")[0] for one in found if one in known}
        graph[name] = {one for one in found if one in known and one not in submodules} - {name}
    return graph


def folder_graph(graph: Graph) -> Graph:
    """The same between the program's own folders; a file that lies in none stands for itself."""
    folders: dict[str, set[str]] = {}
    for name, targets in graph.items():
        folder = ".".join(name.split(".")[:2])
        found = {".".join(target.split(".")[:2]) for target in targets}
        folders.setdefault(folder, set()).update(found - {folder})
    return folders


def cycle(graph: Graph) -> list[str]:
    """One cycle of the graph, in order; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_module_of_the_pipeline_imports_itself_through_others() -> None:
    assert cycle(module_graph(ROOT, "pipeline")) == []


def test_no_folder_of_the_pipeline_imports_itself_through_others() -> None:
    assert cycle(folder_graph(module_graph(ROOT, "pipeline"))) == []


def test_no_module_of_the_handler_imports_itself_as_it_is_loaded() -> None:
    """Imports for types may form a cycle there: a model holds LoRAs, whose loading needs a model."""
    assert cycle(module_graph(ROOT, "handler", on_loading=True)) == []


@pytest.mark.parametrize(("program", "other"), [("pipeline", "handler"), ("handler", "pipeline")])
def test_the_two_programs_never_import_each_other(program: str, other: str) -> None:
    found = [
        f"{name} imports {one}"
        for name, path in modules(ROOT, program).items()
        for one in imported(name, path)
        if one.partition(".")[0] == other
    ]
    assert found == []


def test_a_cycle_through_a_function_and_two_folders_is_seen(tmp_path: Path) -> None:
    for file, source in {
        "one/first.py": "def run():\n    from made.two import second\n",
        "two/second.py": "from made.one.third import name\n",
        "one/third.py": "name = 1\n",
    }.items():
        path = tmp_path / "made" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    graph = module_graph(tmp_path, "made")
    assert cycle(graph) == []
    assert module_graph(tmp_path, "made", on_loading=True)["made.one.first"] == set()
    assert set(cycle(folder_graph(graph))) == {"made.one", "made.two"}
    (tmp_path / "made/one/third.py").write_text("from ..one import first\n", encoding="utf-8")
    assert set(cycle(module_graph(tmp_path, "made"))) == {
        "made.one.first",
        "made.two.second",
        "made.one.third",
    }
    assert cycle(module_graph(tmp_path, "made", on_loading=True)) == []
    (tmp_path / "made/one/first.py").write_text("from made.two import second\n", encoding="utf-8")
    (tmp_path / "made/two/second.py").write_text("from made.one.third import name\n", encoding="utf-8")
    assert cycle(module_graph(tmp_path, "made", on_loading=True)) != []
