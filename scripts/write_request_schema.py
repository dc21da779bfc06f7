"""Writes docs/request.schema.json: the schema of a request under the default limits.

python scripts/write_request_schema.py
"""

from __future__ import annotations

import json
from pathlib import Path

from handler.contract.schema import request_schema
from handler.contract.settings import Settings

FILE = Path(__file__).parents[1] / "docs" / "request.schema.json"


def main() -> None:
    """Replace the file."""
    FILE.write_text(json.dumps(request_schema(Settings()), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
