"""The allowed imports between the handler's rooms, and the modules that they load."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "handler").rglob("*.py"))
MOST_LINES = 250
HEAVY = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "numpy", "PIL", "yaml", "ts")

MAY_IMPORT = {
    "": ("handler", "model.vendored", "doors.torchserve"),
    "contract": ("handler", "contract"),
    "model": ("contract", "model"),
    "engine": ("contract", "model", "engine"),
    "doors": ("handler", "contract", "doors", "model.libraries", "model.vendored"),
}
"""By room, the beginnings of the modules it may import; files beside the rooms are the room ""."""

IN_FUNCTIONS = {
    "doors.torchserve.door": {"engine.opening"},
    "doors.http.engine_here": {"engine.opening"},
    "doors.http.__main__": {
        "contract.settings",
        "doors.http.application",
        "doors.http.desk",
        "doors.http.engine_here",
        "doors.http.guards",
        "doors.http.serve",
    },
}
"""Imports inside a function, which wait until the libraries may be imported."""

SERVER = {"fastapi", "fastapi_offline", "starlette", "uvicorn", "multipart", "python_multipart"}
"""What the extra [server] brings: containers without it have TorchServe's door."""


def name_of(path: Path) -> str:
    """Such as "contract.job"; "handler" for the package itself."""
    name = ".".join(path.relative_to(ROOT / "handler").with_suffix("").parts)
    return name.removesuffix("__init__").removesuffix(".") or "handler"


def own(module: str) -> str:
    return module.removeprefix("handler.")


def imports(nodes: list[ast.stmt]) -> Iterator[str]:
    """Modules that are imported by these statements and whatever is in them."""
    for node in ast.walk(ast.Module(nodes, [])):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def is_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def at_top(path: Path) -> set[str]:
    """What importing the file imports."""
    body = ast.parse(path.read_text()).body
    return set(imports([node for node in body if not hasattr(node, "body") and not is_for_types(node)]))


def in_functions(path: Path) -> set[str]:
    body = ast.parse(path.read_text()).body
    return set(imports([node for node in body if hasattr(node, "body") and not is_for_types(node)]))


def loaded_by(*modules: str) -> set[str]:
    """The heavy libraries that a fresh process holds when it has imported these modules."""
    program = f"""
import importlib, sys
for name in {list(modules)!r}:
    importlib.import_module(name)
print(*({set(HEAVY)!r} & sys.modules.keys()))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    return set(ran.stdout.split())


@pytest.mark.parametrize("room", ["contract", "doors"])
def test_no_library_that_draws_is_loaded_by_the_contract_or_by_the_doors(room: str) -> None:
    modules = [f"handler.{name_of(path)}" for path in FILES if name_of(path).partition(".")[0] == room]
    assert len(modules) > 5
    assert loaded_by(*modules) == set()


def test_a_room_imports_only_the_rooms_below_it() -> None:
    for path in FILES:
        name = name_of(path)
        room = name.partition(".")[0] if "." in name else ""
        inside = {own(module) for module in in_functions(path) if module.startswith("handler")}
        assert inside == IN_FUNCTIONS.get(name, set()), name
        modules = {own(module) for module in at_top(path) if module.startswith("handler")}
        assert [module for module in modules if not module.startswith(MAY_IMPORT[room])] == [], name


def test_only_the_http_door_imports_a_web_framework() -> None:
    using = {
        name_of(path)
        for path in FILES
        if {module.partition(".")[0] for module in (*at_top(path), *in_functions(path))} & SERVER
    }
    assert using
    assert {name for name in using if not name.startswith("doors.http.")} == set()


def test_torch_is_imported_at_the_top_of_the_files_of_engine_and_model_and_nowhere_else() -> None:
    roots = {name_of(path): {module.partition(".")[0] for module in at_top(path)} for path in FILES}
    rooms = {name.partition(".")[0] for name, modules in roots.items() if "torch" in modules}
    assert rooms == {"engine", "model"}
    inside = {path.name for path in FILES for module in in_functions(path) if module.startswith("torch")}
    assert inside == {"packing.py"}, "which reads Inductor's inner modules where it compiles"


def test_no_imports_go_round_in_a_circle() -> None:
    graph = {
        name_of(path): {own(module) for module in at_top(path) if module.startswith("handler")}
        for path in FILES
    }
    while leaves := [name for name, targets in graph.items() if not targets & graph.keys() - {name}]:
        for name in leaves:
            del graph[name]
    assert graph == {}


def test_a_file_can_be_read_in_one_go() -> None:
    lines = {name_of(path): len(path.read_text().splitlines()) for path in FILES}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_the_engine_draws_without_what_makes_it_faster() -> None:
    """As if the folder were not there: an engine on a plain model imports nothing of it."""
    program = """
import sys, tempfile
from pathlib import Path
sys.modules["handler.engine.accelerate"] = None
from tiny import as_model, make_job, make_pipeline
from handler.contract.job import Picture
from handler.engine.engine import Engine
from handler.engine.memory.footprint import measure_footprint
from handler.engine.memory.plan import plan_memory
from handler.engine.options import EngineOptions
from handler.engine.runner import Runner
from handler.engine.watchdog import Watchdog
model = as_model(make_pipeline(Path(tempfile.mkdtemp())))
engine = Engine(model, EngineOptions(), plan_memory(model, measure_footprint(model, 64, 64, 9)))
runner = Runner(engine, Watchdog(600))
assert isinstance(runner.draw(make_job()).outcome.result(timeout=60), Picture)
runner.close()
"""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT / "tests" / "engine",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


def test_only_the_file_that_torchserve_loads_changes_its_envelopes() -> None:
    program = """
import sys
from ts.torch_handler.request_envelope.json import JSONEnvelope
before = JSONEnvelope.handle
import handler.doors.torchserve.door, handler.doors.torchserve.envelope
assert JSONEnvelope.handle is before
import handler.marquee_handler
assert JSONEnvelope.handle is not before
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
