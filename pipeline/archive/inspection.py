"""Reads an archive that may be hostile: lists its content and every reason not to serve it."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.archive.digests import archive_digest, parse_sums, weights_digest
from pipeline.archive.handler_source import read_version
from pipeline.archive.layout import (
    CONFIG_FILE,
    COPY_BYTES,
    HANDLER_FILE,
    HANDLER_PACKAGE,
    LORAS_FOLDER,
    MANIFEST,
    MODEL_FOLDER,
    SUMS,
)
from pipeline.archive.manifest import manifest_problems
from pipeline.archive.model_config import count_problems
from pipeline.archive.pickles import MAX_SEARCHED_BYTES, content_problem
from pipeline.archive.regular import open_regular
from pipeline.archive.safetensors_files import NotSafetensors, read_tensors
from pipeline.archive.safety_checker import CHECKER, DEFAULT_ACTION, EXTRACTOR
from pipeline.archive.texts import Texts
from pipeline.archive.zip_structure import printable, structure_problems
from pipeline.errors import MarqueeError
from pipeline.progress import Progress

NEEDED = (MANIFEST, SUMS, HANDLER_FILE, CONFIG_FILE, f"{MODEL_FOLDER}/model_index.json")


@dataclass(frozen=True)
class InspectedFile:
    """One member: its size in bytes and the SHA-256 of its real content."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class InspectedLora:
    """A LoRA that requests can name: the SHA-256 of its file, and its weight where a request says none."""

    name: str
    sha256: str
    default_weight: float


@dataclass(frozen=True)
class InspectedChecker:
    """The safety checker: one SHA-256 over the digests of its files, as describe answers it.

    ``action`` is what is done with a picture that it flags: send, blur or withhold.
    """

    sha256: str
    action: str


@dataclass(frozen=True)
class Inspection:
    """The content of an archive, which may be served only where ``problems`` is empty."""

    path: Path
    size: int
    files: tuple[InspectedFile, ...]
    archive_digest: str
    weights_digest: str
    versions: Mapping[str, str]
    settings: Mapping[str, Any]
    problems: tuple[str, ...]
    loras: tuple[InspectedLora, ...] = ()
    safety_checker: InspectedChecker | None = None


def inspect_archive(path: Path, progress: Progress, *, name: Path | None = None) -> Inspection:
    """Verify every byte against the sums; nothing of the archive is run or unpacked to disk.

    ``name`` is the file to speak of where ``path`` is a copy of it. Raises MarqueeError where the file is
    missing or is not a complete ZIP file at all.
    """
    shown = name or path
    try:
        with (
            open_regular(path, "marquee build makes it") as file,
            zipfile.ZipFile(file) as archive,
        ):
            return _inspect(shown, file, archive, progress)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError, ValueError) as error:
        raise MarqueeError(
            f"{shown} is not a complete archive: {error}", cure="build or download it again"
        ) from error
    except OSError as error:
        raise MarqueeError(f"{shown} cannot be read: {error.strerror or error}") from error
    finally:
        progress.finish()


def _inspect(path: Path, file: BinaryIO, archive: zipfile.ZipFile, progress: Progress) -> Inspection:
    members = archive.infolist()
    size = os.fstat(file.fileno()).st_size
    problems = list(structure_problems(file, members, archive.start_dir))
    if problems:  # its records are false, so its content is not read
        return Inspection(path, size, (), "", "", {}, {}, tuple(problems))
    names = {member.filename for member in members}
    problems += [f"{name} is missing" for name in NEEDED if name not in names]
    progress.start(f"verifying {path.name}", sum(member.file_size for member in members))
    digests = {}
    for member in members:
        digests[member.filename], found = _read_member(archive, member, progress)
        problems += found
    texts = Texts(archive, names, problems)
    problems += manifest_problems(texts.json(MANIFEST)) if MANIFEST in names else []
    problems += _sum_problems(texts.read(SUMS), digests)
    covered = {name: digest for name, digest in digests.items() if name != SUMS}
    settings = texts.yaml(CONFIG_FILE)
    problems += [f"{CONFIG_FILE}: {problem}" for problem in count_problems(settings)]
    return Inspection(
        path=path,
        size=size,
        files=tuple(
            InspectedFile(printable(member.filename), member.file_size, digests[member.filename])
            for member in sorted(members, key=lambda entry: entry.filename)
        ),
        archive_digest=archive_digest(covered),
        weights_digest=weights_digest(covered),
        versions=_versions(texts),
        settings=settings,
        problems=tuple(problems),
        loras=tuple(_loras(digests, settings)),
        safety_checker=_safety_checker(covered, settings),
    )


def _safety_checker(digests: Mapping[str, str], settings: Mapping[str, Any]) -> InspectedChecker | None:
    folders = tuple(f"{MODEL_FOLDER}/{part}/" for part in (CHECKER, EXTRACTOR))
    files = {path: digest for path, digest in digests.items() if path.startswith(folders)}
    if not any(path.startswith(folders[0]) for path in files):
        return None
    own = settings.get("marquee")
    action = own.get("safety", DEFAULT_ACTION) if isinstance(own, dict) else DEFAULT_ACTION
    return InspectedChecker(weights_digest(files), printable(str(action)[:20]))


def _loras(digests: Mapping[str, str], settings: Mapping[str, Any]) -> Iterator[InspectedLora]:
    own = settings.get("marquee")
    named = own.get("loras") if isinstance(own, dict) else None
    for path, digest in sorted(digests.items()):
        name = path.removeprefix(f"{LORAS_FOLDER}/").removesuffix(".safetensors")
        if path != f"{LORAS_FOLDER}/{name}.safetensors":
            continue
        chosen = named.get(name) if isinstance(named, dict) else None
        weight = chosen.get("default_weight") if isinstance(chosen, dict) else None
        yield InspectedLora(
            printable(name), digest, float(weight) if isinstance(weight, (int, float)) else 1.0
        )


def _read_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, progress: Progress
) -> tuple[str, list[str]]:
    """The SHA-256 of one member, and the problems in its content."""
    sha256, problems, content = hashlib.sha256(), [], bytearray()
    most = COPY_BYTES if member.filename.endswith(".safetensors") else MAX_SEARCHED_BYTES
    shown = printable(member.filename)
    try:
        with archive.open(member) as file:
            while chunk := file.read(COPY_BYTES):
                content += chunk[: max(0, most - len(content))]
                sha256.update(chunk)
                progress.advance(len(chunk))
    except zipfile.BadZipFile:  # a wrong CRC; the sums show it too, unless the file is not listed there
        problems.append(f"{shown} is damaged: its CRC does not match")
    problem = content_problem(member.filename, member.file_size, bytes(content))
    if not problem and member.filename.endswith(".safetensors"):
        problem = _tensors_problem(archive, member)
    return sha256.hexdigest(), [*problems, *([f"{shown} {printable(problem)}"] if problem else [])]


def _tensors_problem(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> str:
    try:
        with archive.open(member) as file:
            read_tensors(file, member.file_size)
    except NotSafetensors as error:
        return f"is not a valid safetensors file: {error}"
    except zipfile.BadZipFile:  # said already
        return ""
    return ""


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


def _versions(texts: Texts) -> dict[str, str]:
    """The versions in the archive: marquee's, and those of the libraries that saved the model."""
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
