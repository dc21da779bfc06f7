"""``build``: a model folder, the handler and a configuration become one model.mar."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.archive.compiling import compiled_members
from pipeline.archive.digests import archive_digest, weights_digest
from pipeline.archive.handler_source import find_handler, handler_members
from pipeline.archive.hub import fetch_model, is_hub_id
from pipeline.archive.layout import CONFIG_FILE, MANIFEST, Member, bytes_member
from pipeline.archive.manifest import manifest_bytes
from pipeline.archive.model_config import config_bytes, with_continuous_batching
from pipeline.archive.model_folder import check_folder, model_members
from pipeline.archive.selection import Dtype
from pipeline.archive.writer import write_archive
from pipeline.containers.bytecode import bytecode_members
from pipeline.containers.packages import package_members
from pipeline.containers.targets import Target, find_target
from pipeline.errors import MarqueeError
from pipeline.progress import Progress

EMBEDDED_MODEL = Path("model_artifacts", "shapes")
DEFAULT_ARCHIVE = Path("model_artifacts", "model.mar")
WHEEL_CACHE = Path.home() / ".cache" / "marquee" / "wheels"
SINGLE_FILE_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


@dataclass(frozen=True)
class BuildConfig:
    """What to build: ``model`` is a diffusers folder or a hub id, ``config`` one's own settings.

    ``container`` is a target of pipeline.containers; None: the packages are installed where it runs.
    ``compiled`` adds a UNet compiled for this machine.
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


@dataclass(frozen=True)
class Built:
    """A finished archive: its size in bytes and the SHA-256 digests that name it and its weights."""

    path: Path
    size: int
    files: int
    archive_digest: str
    weights_digest: str
    packages_size: int = 0
    packages_files: int = 0


def repository_root() -> Path:
    """The folder that holds model_artifacts: the working folder, else the one that the package lies in."""
    here = Path.cwd()
    return here if (here / EMBEDDED_MODEL).is_dir() else Path(__file__).resolve().parents[2]


def build(config: BuildConfig, progress: Progress) -> Built:
    """Build the archive; raises MarqueeError, and then leaves nothing behind."""
    if config.out.is_dir():
        raise MarqueeError(
            f"the archive cannot be written to {str(config.out)!r}: that is a folder",
            cure=f"name a file: --out {config.out / DEFAULT_ARCHIVE.name}",
        )
    folder = resolve_model(config, progress)
    target = find_target(config.container) if config.container else None
    packages = package_members(target, WHEEL_CACHE, progress) if target else []
    if target and config.compile_with:
        packages += bytecode_members(packages, target, config.compile_with)
    members = [*archive_members(config, folder, target), *packages]
    if config.compiled:
        with compiled_members(members, config.out.resolve().parent, progress) as compiled:
            digests = write_archive(config.out, [*members, *compiled], progress)
    else:
        digests = write_archive(config.out, members, progress)
    return Built(
        path=config.out,
        size=config.out.stat().st_size,
        files=len(digests) + 1,
        archive_digest=archive_digest(digests),
        weights_digest=weights_digest(digests),
        packages_size=sum(member.size for member in packages),
        packages_files=len(packages),
    )


def archive_members(config: BuildConfig, folder: Path, target: Target | None) -> list[Member]:
    """Everything that goes into the archive but its packages and its sums file."""
    selection = check_folder(folder, config.dtype, safety_checker=config.safety_checker)
    handler = find_handler()
    settings = config_bytes(folder, config.config, repository_root() / EMBEDDED_MODEL, handler)
    if target:
        settings = with_continuous_batching(settings, target.takes_continuous_batching)
    return [
        *handler_members(handler),
        *model_members(folder, selection, config.dtype, safety_checker=config.safety_checker),
        bytes_member(CONFIG_FILE, settings),
        bytes_member(MANIFEST, manifest_bytes()),
    ]


def resolve_model(config: BuildConfig, progress: Progress) -> Path:
    """The local folder of the model, downloaded first where it is a hub id."""
    path = Path(config.model)
    if path.is_dir():
        return path
    if path.is_file() or path.suffix in SINGLE_FILE_SUFFIXES:
        raise _single_file_error(path)
    if not is_hub_id(config.model):
        raise MarqueeError(f"{config.model} is neither a folder nor a hub id of the form owner/name")
    return fetch_model(config, progress)


def _single_file_error(path: Path) -> MarqueeError:
    if not path.is_file():
        return MarqueeError(f"{path} does not exist")
    folder = path.with_suffix("")
    code = (
        "from diffusers import StableDiffusionPipeline as P; "
        f"P.from_single_file({str(path)!r}).save_pretrained({str(folder)!r})"
    )
    return MarqueeError(
        f"{path} is a single-file checkpoint; marquee packs a diffusers folder",
        cure=f'python -c "{code}"   and then: marquee build --model {folder}',
    )
