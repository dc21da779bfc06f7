"""The handler as it travels: unpacked, alone, under TorchServe's own loader and on an old Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.containers.python39 import find_python39
from pipeline.errors import MarqueeError

HANDLER = Path(__file__).parents[2] / "handler"
TORCH_FREE = [
    *(f"contract.{path.stem}" for path in sorted(HANDLER.glob("contract/*.py"))),
    "model.digest",
    "model.vendored",
]


def python39() -> Path | None:
    try:
        return find_python39(None, os.environ)
    except MarqueeError:
        return None


PYTHON_39 = python39()

# Runs as TorchServe's worker does: the archive's folder is the working directory and first on the path.
WORKER = """
import json, sys
from ts.context import RequestProcessor
from ts.model_loader import TsModelLoader

answers = {}
for envelope in ("json", "body", None):
    service = TsModelLoader().load("model", ".", "marquee_handler.py", None, 8, envelope)
    context = service.context
    context.request_ids = {0: "a", 1: "b", 2: "c"}
    context.request_processor = [RequestProcessor({}) for _ in range(3)]
    rows = [{"body": body} for body in json.loads(sys.argv[1])]
    texts = service._entry_point(rows, context)
    statuses = [context.get_response_status(index)[0] for index in range(3)]
    answers[str(envelope)] = [statuses, [json.loads(text) for text in texts]]
import handler
print(json.dumps([handler.__file__, answers]))
"""


@pytest.fixture(scope="module")
def unpacked(archive_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole unpacked archive, laid out as the archive's writer does."""
    root = Path(shutil.copytree(archive_root, tmp_path_factory.mktemp("unpacked") / "root"))
    shutil.copytree(
        HANDLER, root / "handler", ignore=shutil.ignore_patterns("__pycache__", "marquee_handler.py")
    )
    shutil.copy(HANDLER / "marquee_handler.py", root)
    return root


@pytest.fixture(scope="module")
def served(unpacked: Path) -> Any:
    bodies = [
        {"instances": [{"prompt": "a", "seed": 1}, {"prompt": "b", "seed": 2}], "parameters": {"width": 32}},
        {"instances": [{"prompt": "a", "widht": 1}]},
        {"instances": []},
    ]
    environment = {**os.environ, "PYTHONPATH": str(unpacked), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", WORKER, json.dumps(bodies)],
        cwd=unpacked,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return json.loads(ran.stdout.splitlines()[-1])


def test_the_archives_own_code_is_what_runs(served: Any, unpacked: Path) -> None:
    assert Path(served[0]) == unpacked / "handler" / "__init__.py"


def test_every_envelope_gives_the_same_answers(served: Any) -> None:
    answers = served[1]
    assert answers["json"] == answers["body"] == answers["None"]
    statuses, (good, bad, empty) = answers["json"]
    assert statuses == [200, 400, 400]
    assert len(good["predictions"]) == 2
    assert bad["error"]["problems"][0]["did_you_mean"] == "width"
    assert empty["error"]["problems"][0]["field"] == "instances"


@pytest.mark.skipif(not PYTHON_39, reason="no Python 3.9 installed")
def test_the_torch_free_modules_run_on_python_3_9() -> None:
    program = f"""
import sys
sys.path.insert(0, {str(HANDLER.parent)!r})
import importlib
for name in {[*TORCH_FREE, "doors.torchserve.drain", "doors.torchserve.envelope", "marquee_handler"]!r}:
    importlib.import_module("handler." + name)
assert not {{"torch", "diffusers", "numpy", "PIL", "yaml"}} & sys.modules.keys()
from handler.contract.request import parse_row
from handler.contract.settings import Settings
body = b'{{"instances": ["a cat"], "parameters": {{"seed": "12"}}}}'
request = parse_row({{"body": body}}, Settings(), int)
assert request.jobs[0].seed == 12, request
refusal = parse_row({{"body": b'{{"instances": [{{"promt": 1}}]}}'}}, Settings(), int)
assert [problem.field for problem in refusal.problems] == ["promt", "prompt"], refusal
"""
    assert PYTHON_39 is not None
    subprocess.run([PYTHON_39, "-I", "-c", program], timeout=120, check=True)


def test_the_entry_module_defines_one_class_and_shadows_no_library() -> None:
    names = {path.stem for path in HANDLER.glob("*.py")}
    assert "marquee_handler" in names
    # TorchServe puts the archive's folder before the standard library.
    assert "marquee_handler" not in sys.stdlib_module_names
    assert "handler" not in sys.stdlib_module_names
