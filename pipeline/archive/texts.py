"""An archive's small text files, read with limits."""

from __future__ import annotations

import json
import zipfile
from typing import Any

from pipeline.archive.plain_yaml import NotPlain, read_mapping

MAX_TEXT_BYTES = 8 << 20


class Texts:
    """An archive's small text files; one that cannot be read is empty and adds to ``problems``."""

    def __init__(self, archive: zipfile.ZipFile, names: set[str], problems: list[str]) -> None:
        self._archive, self._names, self._problems = archive, names, problems

    def read(self, name: str) -> str:
        if name not in self._names:
            return ""
        if self._archive.getinfo(name).file_size > MAX_TEXT_BYTES:
            self._problems.append(f"{name} is larger than {MAX_TEXT_BYTES} bytes")
            return ""
        try:
            return self._archive.read(name).decode("utf-8")
        except (zipfile.BadZipFile, UnicodeDecodeError) as error:
            self._problems.append(f"{name} is not readable text: {error}")
            return ""

    def json(self, name: str) -> dict[str, Any]:
        try:
            found = json.loads(self.read(name) or "{}")
        except (ValueError, RecursionError) as error:
            self._problems.append(f"{name} is not JSON: {error}")
            return {}
        return found if isinstance(found, dict) else {}

    def yaml(self, name: str) -> dict[str, Any]:
        """A mapping of plain values, without aliases."""
        try:
            return read_mapping(self.read(name).encode())
        except NotPlain as error:
            self._problems.append(f"{name} is not plain YAML: {error}")
            return {}
