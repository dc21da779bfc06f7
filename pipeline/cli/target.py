"""The options, the configuration and the first output line that all commands with a cloud share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.environment import read_environment
from pipeline.errors import MarqueeError
from pipeline.yaml_text import parse_yaml, read_yaml

if TYPE_CHECKING:
    from pipeline.deploy.archive_file import ArchiveFile
    from pipeline.deploy.config import DeployConfig
    from pipeline.deploy.connection import Connection

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="deploy.yaml; ./deploy.yaml is read when it is there.")
]
CloudOption = Annotated[
    str | None, typer.Option("--cloud", help="local (the default), or google, which costs money.")
]
ProfileOption = Annotated[
    str | None, typer.Option("--profile", help="p100, t4 or l4 [default: the machine of t4].")
]
ArchiveOption = Annotated[
    Path | None,
    typer.Option(
        "--archive",
        help="A model.mar of your own; without it one of the embedded model is built for the container.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="KEY=VALUE in place of deploy.yaml's, such as --set region=europe-west1."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@dataclass(frozen=True)
class DeployOptions:
    """The command-line options that describe a deployment."""

    config: Path | None
    cloud: str | None
    profile: str | None = None
    settings: Sequence[str] = ()
    traffic: int | None = None
    archive: Path | None = None

    def load(self) -> DeployConfig:
        """The checked configuration; raises MarqueeError with every mistake in it."""
        from pipeline.deploy.config import load_config

        return load_config(self.file(), self.flags(), self.profile, date.today())

    def judge(self, today: date) -> tuple[DeployConfig, list[str]]:
        """The configuration and its mistakes; the doctor lists them, where other commands stop."""
        from pipeline.deploy.config import gather, validate

        return validate(gather(self.file(), self.flags(), self.profile), today)

    def flags(self) -> dict[str, Any]:
        flags: dict[str, Any] = {"cloud": self.cloud, "traffic": self.traffic}
        if self.archive is not None:
            flags["archive"] = str(self.archive)
        for setting in self.settings:
            key, separator, value = setting.partition("=")
            first, dot, rest = key.partition(".")
            if not separator or not first or (dot and not rest):
                raise MarqueeError(
                    f"--set {setting[:200]} is not a setting", "write KEY=VALUE, such as region=us-central1"
                )
            read = parse_yaml(value, f"--set {key[:80]}: {value[:200]!r}")
            inner = flags.get(first)
            flags[first] = {**(inner if isinstance(inner, dict) else {}), rest: read} if rest else read
        return flags

    def file(self) -> Path | None:
        usual = Path("deploy.yaml")
        file = self.config or (usual if usual.exists() else None)
        if file is not None:
            read_yaml(
                file, "name the file with --config"
            )  # a file that is not YAML is reported before anything else
        return file


@contextmanager
def connected(options: DeployOptions, quiet: bool = False) -> Iterator[tuple[DeployConfig, Connection]]:
    """The configuration and clients for it, after the line that names the target."""
    from pipeline.cloud.state import CloudFolder
    from pipeline.deploy.connection import connect, target_line

    config = options.load()
    if not quiet:
        print(target_line(config), flush=True)
    with connect(config, CloudFolder().running(), read_environment().variables) as connection:
        yield config, connection


def the_archive(config: DeployConfig) -> ArchiveFile:
    """The archive that the configuration names, or the embedded model's, built for its container."""
    from pipeline.archive.build import repository_root
    from pipeline.cli.console import LiveProgress
    from pipeline.containers.fit import target_of
    from pipeline.containers.kept_archive import archive_for
    from pipeline.deploy.archive_file import read_archive

    if config.archive:
        return read_archive(Path(config.archive))
    target = target_of(config.image_uri, config.container)
    progress = LiveProgress()
    archive = read_archive(archive_for(target.name if target else None, progress))
    if other := _other_model(repository_root(), archive):
        progress.note(f"{other} holds another model and is not used; to use it: --archive {other}")
    return archive


def rehearsal_line(config: DeployConfig) -> str:
    """Says with which packages the local cloud runs the archive; a Google deployment is not rehearsed."""
    from pipeline.containers.fit import target_of
    from pipeline.containers.twin import rehearsed_in

    words = rehearsed_in(target_of(config.image_uri, config.container))
    if config.cloud == "local":
        return words
    return f"a Google deployment is not rehearsed; with --cloud local it is {words}"


def _other_model(root: Path, archive: ArchiveFile) -> Path | None:
    """The archive that `marquee build` wrote last, where it holds other weights than ``archive``."""
    from pipeline.archive.build import DEFAULT_ARCHIVE
    from pipeline.deploy.archive_file import read_archive

    built = root / DEFAULT_ARCHIVE
    try:
        return built if read_archive(built).weights_digest != archive.weights_digest else None
    except (MarqueeError, OSError):
        return None
