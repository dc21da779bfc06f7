"""Checks of the archive file: where its weights come from, and whether it fits its container."""

from __future__ import annotations

import ast
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.archive.inspection import inspect_archive
from pipeline.archive.layout import HANDLER_FILE, MANIFEST, SUMS
from pipeline.containers.fit import misfits, missing_in, read_contents, target_of
from pipeline.doctor.findings import Finding, facts, known_failure, passed
from pipeline.doctor.subject import Subject
from pipeline.errors import MarqueeError
from pipeline.progress import Silent

_WEIGHTS = (".safetensors", ".bin", ".ckpt", ".pt", ".pth")
_REPOSITORY_WORDS = {"pretrained_model_name_or_path", "pretrained_model_link_or_path", "repo_id"}
_LOADERS = {"from_pretrained", "from_single_file", "snapshot_download", "hf_hub_download"}


def check_archive(subject: Subject) -> list[Finding]:
    """Findings from the file alone. An archive that marquee built is verified byte by byte."""
    if subject.archive is None:
        return []
    try:
        with zipfile.ZipFile(subject.archive) as mar:
            names = mar.namelist()
            sources = {n: mar.read(n).decode("utf-8", "replace") for n in names if _is_handler_code(n)}
            manifest = json.loads(mar.read(MANIFEST)) if MANIFEST in names else {}
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        return [known_failure("archive", "archive_damaged", path=subject.archive, why=error)]
    ours = HANDLER_FILE in names and SUMS in names
    found = _verified(subject.archive) if ours else _foreign(subject.archive, names, manifest, sources)
    return found + check_fit(subject)


def _is_handler_code(name: str) -> bool:
    """Whether this is one of the handler's own modules, and not a file of a package in the archive."""
    return name.endswith(".py") and ("/" not in name or name.startswith("handler/"))


def _verified(archive: Path) -> list[Finding]:
    try:
        inspection = inspect_archive(archive, Silent())
    except MarqueeError as error:
        return [known_failure("archive", "archive_damaged", path=archive, why=error)]
    if inspection.problems:
        return [
            known_failure("archive", "archive_damaged", path=archive, why=why) for why in inspection.problems
        ]
    return [
        passed("archive", f"{archive}: {len(inspection.files)} files verified"),
        passed("weights", f"the archive carries its weights: {inspection.weights_digest[:12]}"),
    ]


def _foreign(
    archive: Path, names: list[str], manifest: dict[str, object], sources: dict[str, str]
) -> list[Finding]:
    model = manifest.get("model")
    handler = str(model.get("handler", "a Python file")) if isinstance(model, dict) else "a Python file"
    found = [known_failure("handler", "foreign_handler", handler=handler)]
    loaded = sorted({name for source in sources.values() for name in hub_names(source)})
    for repository in loaded:
        gone = facts("gone_repositories").get(repository)
        if gone:
            found.append(known_failure("weights", "hub_gone", repository=repository, **gone))
        found.append(known_failure("weights", "hub_at_start", repository=repository))
    weights = [name for name in names if name.endswith(_WEIGHTS)]
    if weights and loaded:
        found.append(known_failure("weights", "weights_not_loaded", where=archive, names=_few(weights)))
    return found


def hub_names(source: str) -> Iterator[str]:
    """The hub repositories that the Python source loads by a literal OWNER/NAME."""
    try:
        calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    except SyntaxError:
        return
    for call in calls:
        if getattr(call.func, "attr", getattr(call.func, "id", "")) not in _LOADERS:
            continue
        named = [word.value for word in call.keywords if word.arg in _REPOSITORY_WORDS]
        for argument in [*call.args[:1], *named]:
            name = argument.value if isinstance(argument, ast.Constant) else None
            if isinstance(name, str) and name.count("/") == 1 and not name.startswith((".", "/")):
                yield name


def check_fit(subject: Subject) -> list[Finding]:
    """Whether the container can run the archive; no findings for a file that is not an archive."""
    if subject.archive is None:
        return []
    try:
        contents = read_contents(subject.archive)
    except (OSError, zipfile.BadZipFile, ValueError):
        return []
    target = target_of(subject.image_uri, subject.container)
    container = target.name if target else subject.image_uri
    found = misfits(contents, subject.image_uri, subject.container)
    words = {
        "container": container,
        "built_for": contents.container,
        "missing": ", ".join(missing_in(contents, target)),
    }
    if found:
        return [known_failure("container", one.failure, archive=subject.archive, **words) for one in found]
    return [passed("container", f"the archive fits {container}")] if target else []


def check_folder(artifact_uri: str, names: list[str], archive_is_ours: bool) -> list[Finding]:
    """Check the objects below ``artifact_uri`` (relative names), which the prebuilt container copies."""
    if not names:
        return [known_failure("bucket", "bucket_empty", artifact_uri=artifact_uri)]
    archives = [name for name in names if name.endswith(".mar") and "/" not in name]
    if archives != ["model.mar"]:
        shown = _few(archives) or "no archive"
        return [known_failure("bucket", "archive_name", artifact_uri=artifact_uri, names=shown)]
    weights = [name for name in names if name.endswith(_WEIGHTS)]
    if weights and not archive_is_ours:
        where = artifact_uri
        return [known_failure("bucket", "weights_not_loaded", where=where, names=_few(weights))]
    return [passed("bucket", f"{artifact_uri} holds model.mar")]


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown}, ..." if len(names) > 3 else shown
