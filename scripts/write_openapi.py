"""Writes docs/openapi.json: the HTTP door's routes under the settings that no model-config.yaml changes."""

from __future__ import annotations

import json
from pathlib import Path

from handler.contract.settings import Settings
from handler.doors.http.application import make_application
from handler.doors.http.desk import Desk
from handler.doors.http.guards import Guards

FILE = Path(__file__).parents[1] / "docs" / "openapi.json"


def document() -> str:
    """The text of docs/openapi.json."""
    return json.dumps(make_application(Desk(Settings()), Guards(), {}).openapi(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(document(), encoding="utf-8")
