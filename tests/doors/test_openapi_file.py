"""docs/openapi.json says what the HTTP door serves."""

from __future__ import annotations

import json
from pathlib import Path

from handler.contract.settings import Settings
from handler.doors.http.application import make_application
from handler.doors.http.desk import Desk
from handler.doors.http.guards import Guards

FILE = Path(__file__).parents[2] / "docs" / "openapi.json"


def test_the_document_is_current() -> None:
    wanted = make_application(Desk(Settings()), Guards(), {}).openapi()
    assert json.loads(FILE.read_text()) == json.loads(json.dumps(wanted)), (
        "run python scripts/write_openapi.py"
    )
