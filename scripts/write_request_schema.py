"""Writes docs/request.schema.json, under the default limits, and docs/events.schema.json.

python scripts/write_request_schema.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from handler.contract.event_schema import event_schema
from handler.contract.schema import request_schema
from handler.contract.settings import Settings

DOCS = Path(__file__).parents[1] / "docs"


def main() -> None:
    """Replace the files."""
    _write("request.schema.json", request_schema(Settings()))
    _write("events.schema.json", event_schema())


def _write(name: str, schema: dict[str, Any]) -> None:
    (DOCS / name).write_text(json.dumps(schema, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
