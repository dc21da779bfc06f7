"""Reads an archive that may be hostile: what is inside, and every reason not to serve it."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.archive.digests import archive_digest, parse_sums, weights_digest
from pipeline.archive.handler_source import read_version
from pipeline.archive.layout import (
    CONFIG_FILE,
    COPY_BYTES,
    HANDLER_FILE,
    HANDLER_PACKAGE,
    MANIFEST,
    MODEL_FOLDER,
    SUMS,
)
from pipeline.archive.pickles import content_problem
from pipeline.archive.zip_structure import printable, structure_problems
from pipeline.errors import MarqueeError
from pipeline.progress import Progress

MAX_TEXT_BYTES = 8 << 20
MAX_YAML_BRACKETS = 1000  # PyYAML takes quadratic time for nested ones
NEEDED = (MANIFEST, SUMS, HANDLER_FILE, CONFIG_FILE, f"{MODEL_FOLDER}/model_index.json")


@dataclass(frozen=True)
class InspectedFile:
    """One member: its size in bytes and the SHA-256 of what is really in it."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Inspection:
    """What an archive holds; it may be served only where ``problems`` is empty."""

    path: Path
    size: int
    files: tuple[InspectedFile, ...]
    archive_digest: str
    weights_digest: str
    versions: Mapping[str, str]
    settings: Mapping[str, Any]
    problems: tuple[str, ...]


def inspect_archive(path: Path, progress: Progress) -> Inspection:
    """Verify every byte against the sums; nothing of the archive is run or unpacked to disk.

    Raises MarqueeError where the file is missing or is no complete ZIP at all.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _inspect(path, archive, progress)
    except FileNotFoundError as error:
        raise MarqueeError(f"{path} does not exist", cure="marquee build makes it") from error
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError, ValueError) as error:
        raise MarqueeError(
            f"{path} is no complete archive: {error}", cure="build or download it again"
        ) from error
    except OSError as error:
        raise MarqueeError(f"{path} cannot be read: {error.strerror or error}") from error
    finally:
        progress.finish()


def _inspect(path: Path, archive: zipfile.ZipFile, progress: Progress) -> Inspection:
    members = archive.infolist()
    problems = list(structure_problems(path, members, archive.start_dir))
    if problems:  # its records lie, so its content is not looked at
        return Inspection(path, path.stat().st_size, (), "", "", {}, {}, tuple(problems))
    names = {member.filename for member in members}
    problems += [f"{name} is missing" for name in NEEDED if name not in names]
    progress.start(f"verifying {path.name}", sum(member.file_size for member in members))
    digests = {}
    for member in members:
        digests[member.filename], found = _read_member(archive, member, progress)
        problems += found
    texts = Texts(archive, names, problems)
    problems += _sum_problems(texts.read(SUMS), digests)
    covered = {name: digest for name, digest in digests.items() if name != SUMS}
    return Inspection(
        path=path,
        size=path.stat().st_size,
        files=tuple(
            InspectedFile(printable(member.filename), member.file_size, digests[member.filename])
            for member in sorted(members, key=lambda entry: entry.filename)
        ),
        archive_digest=archive_digest(covered),
        weights_digest=weights_digest(covered),
        versions=_versions(texts),
        settings=texts.yaml(CONFIG_FILE),
        problems=tuple(problems),
    )


def _read_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, progress: Progress
) -> tuple[str, list[str]]:
    """The SHA-256 of one member and what its content shows to be wrong."""
    sha256, problems, first = hashlib.sha256(), [], b""
    try:
        with archive.open(member) as content:
            while chunk := content.read(COPY_BYTES):
                first = first or chunk
                sha256.update(chunk)
                progress.advance(len(chunk))
    except zipfile.BadZipFile:  # the CRC; the sums say so too, unless the file is not listed there
        problems.append(f"{printable(member.filename)} is damaged: its CRC does not match")
    if problem := content_problem(member.filename, member.file_size, first):
        problems.append(f"{printable(member.filename)} {problem}")
    return sha256.hexdigest(), problems


def _sum_problems(sums: str, digests: Mapping[str, str]) -> Iterator[str]:
    if not sums:
        return
    try:
        expected = parse_sums(sums)
    except ValueError as error:
        yield f"{SUMS}: {error}"
        return
    for name in sorted(expected.keys() | digests.keys() - {SUMS}):
        if name not in digests:
            yield f"{printable(name)} is listed in {SUMS} but missing"
        elif name not in expected:
            yield f"{printable(name)} is not listed in {SUMS}"
        elif digests[name] != expected[name]:
            yield f"{printable(name)} has changed: SHA-256 {digests[name]}, not {expected[name]}"


class Texts:
    """An archive's small text files; what cannot be read is empty and adds to ``problems``."""

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
        """A mapping without aliases, which could stand for more than fits into memory."""
        import yaml

        text = self.read(name)
        try:
            if text.count("[") + text.count("{") > MAX_YAML_BRACKETS:
                raise ValueError("it has too many brackets")
            if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
                raise ValueError("it uses aliases")
            found = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            self._problems.append(f"{name} is not plain YAML: {error}")
            return {}
        return found if isinstance(found, dict) else {}


def _versions(texts: Texts) -> dict[str, str]:
    """What the archive says of its makers: marquee's own version and the libraries that saved the model."""
    try:
        marquee = read_version(texts.read(f"{HANDLER_PACKAGE}/__init__.py"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        marquee = None
    found = {
        "marquee": marquee,
        "manifest": texts.json(MANIFEST).get("archiverVersion"),
        "diffusers": texts.json(f"{MODEL_FOLDER}/model_index.json").get("_diffusers_version"),
        "transformers": texts.json(f"{MODEL_FOLDER}/text_encoder/config.json").get("transformers_version"),
    }
    return {name: printable(str(version)) for name, version in found.items() if version is not None}
