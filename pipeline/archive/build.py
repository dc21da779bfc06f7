"""``build``: a model folder, the handler and a configuration become one model.mar."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.archive.compiling import compiled_members
from pipeline.archive.digests import archive_digest, weights_digest
from pipeline.archive.handler_source import find_handler, handler_members
from pipeline.archive.hub import HubModel, fetch_model, is_hub_id
from pipeline.archive.layout import CONFIG_FILE, CONTAINER_FILE, MANIFEST, Member, bytes_member
from pipeline.archive.leftovers import ignored_weights
from pipeline.archive.loras.members import lora_members, with_loras
from pipeline.archive.loras.option import LoraFile
from pipeline.archive.manifest import manifest_bytes
from pipeline.archive.model_config import config_bytes, with_continuous_batching, written_defaults
from pipeline.archive.model_folder import check_folder, file_names, model_members
from pipeline.archive.regular import is_folder, special_kind
from pipeline.archive.safety_checker import check_setting
from pipeline.archive.selection import Dtype, Selection
from pipeline.archive.single_file import converted
from pipeline.archive.target.bytecode import bytecode_members
from pipeline.archive.target.packages import package_members
from pipeline.archive.target.targets import Target, container_record, find_target
from pipeline.archive.writer import write_archive
from pipeline.errors import MarqueeError
from pipeline.progress import Progress

EMBEDDED_MODEL = Path("model_artifacts", "shapes")
DEFAULT_ARCHIVE = Path("model_artifacts", "model.mar")
WHEEL_CACHE = Path.home() / ".cache" / "marquee" / "wheels"
SINGLE_FILE_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


@dataclass(frozen=True)
class BuildConfig:
    """A build's options. ``model`` is a diffusers folder, a checkpoint or a hub id; ``config`` is a file.

    ``container`` is a target of target/targets.yaml; None: the packages are installed where it runs.
    ``compiled`` adds a UNet compiled for this machine. ``base`` has a checkpoint's configurations.
    ``loras`` are packed so that requests can name them.
    """

    model: str
    out: Path
    config: Path | None = None
    dtype: Dtype = "keep"
    safety_checker: bool = False
    revision: str | None = None
    container: str | None = None
    compile_with: Path | None = None
    compiled: bool = False
    base: Path | None = None
    loras: tuple[LoraFile, ...] = ()


@dataclass(frozen=True)
class Built:
    """A finished archive: its size in bytes and the SHA-256 digests of itself and of its weights.

    ``defaults`` are those written into its model-config.yaml; ``warnings`` name weights that are not packed.
    """

    path: Path
    size: int
    files: int
    archive_digest: str
    weights_digest: str
    packages_size: int = 0
    packages_files: int = 0
    defaults: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def repository_root() -> Path:
    """The folder that holds model_artifacts: the working folder, or else the folder of the package."""
    here = Path.cwd()
    return here if (here / EMBEDDED_MODEL).is_dir() else Path(__file__).resolve().parents[2]


def build(config: BuildConfig, progress: Progress) -> Built:
    """Build the archive; raises MarqueeError, and then leaves no file behind."""
    check_out(config.out)
    target = find_target(config.container) if config.container is not None else None
    with _model_folder(config, progress) as folder:
        check_no_input(config, folder)
        packages = package_members(target, WHEEL_CACHE, progress) if target else []
        if target and config.compile_with:
            packages += bytecode_members(packages, target, config.compile_with)
        selection = check_folder(folder, config.dtype, safety_checker=config.safety_checker)
        settings = with_loras(_settings(config, folder, target), config.loras)
        check_setting(settings, config.safety_checker)
        members = [*archive_members(config, folder, selection, settings), *packages]
        members += lora_members(config.loras, folder, selection)
        if target:
            members.append(bytes_member(CONTAINER_FILE, container_record(target)))
        digests = _write(config, members, progress)
        warnings = tuple(
            ignored_weights(folder, file_names(folder), (*selection.files, *_packed_loras(config, folder)))
        )
    return Built(
        path=config.out,
        size=config.out.stat().st_size,
        files=len(digests) + 1,
        archive_digest=archive_digest(digests),
        weights_digest=weights_digest(digests),
        packages_size=sum(member.size for member in packages),
        packages_files=len(packages),
        defaults=written_defaults(settings),
        warnings=warnings,
    )


def _packed_loras(config: BuildConfig, folder: Path) -> list[str]:
    """The paths that lie in the model's folder, relative to it."""
    root = folder.resolve()
    paths = [lora.path.resolve() for lora in config.loras]
    return [path.relative_to(root).as_posix() for path in paths if path.is_relative_to(root)]


def check_out(out: Path) -> None:
    """Raises MarqueeError where no archive can or should be written: a folder, a device, a pipe."""
    if kind := special_kind(out):
        named = out / DEFAULT_ARCHIVE.name if kind == "a folder" else DEFAULT_ARCHIVE
        raise MarqueeError(
            f"the archive cannot be written to {str(out)!r}: that is {kind}",
            cure=f"name a file: --out {named}",
        )


def check_no_input(config: BuildConfig, folder: Path) -> None:
    """Raises MarqueeError where the archive would replace one of the files it is made from."""
    out = Path(os.path.realpath(config.out))
    given = (config.model, config.config, *(lora.path for lora in config.loras))
    inputs = [os.path.realpath(path) for path in given if path is not None]
    inside = out.is_relative_to(os.path.realpath(folder)) and out.suffix != ".mar"
    if out.exists() and (str(out) in inputs or inside):
        raise MarqueeError(
            f"the archive cannot be written to {str(config.out)!r}: the archive is made from that file",
            cure=f"name another file: --out {DEFAULT_ARCHIVE}",
        )


def _write(config: BuildConfig, members: list[Member], progress: Progress) -> dict[str, str]:
    if not config.compiled:
        return write_archive(config.out, members, progress)
    with compiled_members(members, config.out.resolve().parent, progress) as compiled:
        return write_archive(config.out, [*members, *compiled], progress)


def _settings(config: BuildConfig, folder: Path, target: Target | None) -> bytes:
    settings = config_bytes(folder, config.config, repository_root() / EMBEDDED_MODEL, find_handler())
    return with_continuous_batching(settings, target.takes_continuous_batching) if target else settings


def archive_members(config: BuildConfig, folder: Path, selection: Selection, settings: bytes) -> list[Member]:
    """All members of the archive except its packages and its sums file."""
    return [
        *handler_members(find_handler()),
        *model_members(folder, selection, config.dtype, safety_checker=config.safety_checker),
        bytes_member(CONFIG_FILE, settings),
        bytes_member(MANIFEST, manifest_bytes()),
    ]


@contextmanager
def _model_folder(config: BuildConfig, progress: Progress) -> Iterator[Path]:
    """The local folder of the model: itself, downloaded, or converted from a single file."""
    path = Path(config.model)
    is_file = not is_folder(path) and (path.suffix in SINGLE_FILE_SUFFIXES or path.exists())
    if config.base is not None and not is_file:
        raise MarqueeError(
            f"--base {config.base} is for a single-file checkpoint, and {config.model} is not one",
            "leave --base out",
        )
    if is_folder(path):
        yield path
    elif is_file:
        embedded = repository_root() / EMBEDDED_MODEL
        with converted(path, config.base, embedded, config.out.resolve().parent, progress) as folder:
            yield folder
    elif is_hub_id(config.model):
        wanted = HubModel(config.model, config.revision, config.dtype, config.safety_checker)
        yield fetch_model(wanted, progress)
    else:
        raise MarqueeError(
            f"{config.model} is neither a folder nor a hub id of the form owner/name",
            "name a diffusers folder, a .safetensors checkpoint, or a hub id",
        )
