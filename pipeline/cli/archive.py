"""Commands: build, inspect, convert."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from pipeline.archive.selection import Dtype
from pipeline.cli import panels

if TYPE_CHECKING:
    from pipeline.archive.build import Built
    from pipeline.archive.inspection import Inspection


def register(app: typer.Typer) -> None:
    """Add this file's commands to the application."""
    app.command(rich_help_panel=panels.BUILD)(build)
    app.command(rich_help_panel=panels.BUILD)(inspect)
    app.command(rich_help_panel=panels.BUILD)(convert)


ModelOption = Annotated[
    str | None, typer.Option(help="A diffusers folder, a .safetensors checkpoint or a hub id.")
]
OutOption = Annotated[Path | None, typer.Option(help="The archive to write.")]
SettingsOption = Annotated[Path | None, typer.Option(help="A model-config.yaml of your own.")]
DtypeOption = Annotated[Dtype, typer.Option(help="The dtype in which UNet and VAE are stored.")]
SafetyOption = Annotated[bool, typer.Option("--safety-checker", help="Pack the model's safety checker.")]
RevisionOption = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")]
ContainerOption = Annotated[
    str | None,
    typer.Option(help="The container it will run in; adds the packages that this container lacks."),
]
CompileWithOption = Annotated[
    Path | None, typer.Option(help="A Python of the container's version: adds bytecode for these packages.")
]
CompileOption = Annotated[bool, typer.Option("--compile", help="Compile the UNet for this machine.")]
BaseOption = Annotated[
    Path | None,
    typer.Option(help="A diffusers folder with the configurations for a .safetensors checkpoint."),
]
LoraOption = Annotated[
    list[str] | None, typer.Option(help="NAME=FILE[:DEFAULT_WEIGHT]: pack a LoRA; may be repeated.")
]


def build(
    model: ModelOption = None,
    out: OutOption = None,
    config: SettingsOption = None,
    dtype: DtypeOption = "keep",
    safety_checker: SafetyOption = False,
    revision: RevisionOption = None,
    container: ContainerOption = None,
    compile_with: CompileWithOption = None,
    compiled: CompileOption = False,
    base: BaseOption = None,
    lora: LoraOption = None,
) -> None:
    """Pack a model, the handler and its settings into model.mar."""
    from pipeline.archive import build as steps
    from pipeline.archive.loras.option import parse_loras
    from pipeline.cli.console import LiveProgress

    signal.signal(signal.SIGTERM, _stop)
    root = steps.repository_root()
    built = steps.build(
        steps.BuildConfig(
            model=str(root / steps.EMBEDDED_MODEL) if model is None else model,
            out=out or root / steps.DEFAULT_ARCHIVE,
            config=config,
            dtype=dtype,
            safety_checker=safety_checker,
            revision=revision,
            container=container,
            compile_with=compile_with,
            compiled=compiled,
            base=base,
            loras=parse_loras(lora or []),
        ),
        LiveProgress(),
    )
    _print_built(built)


def _print_built(built: Built) -> None:
    print(f"{built.path}  {built.size:,} bytes, {built.files} files")
    print(f"archive digest  {built.archive_digest}")
    print(f"weights digest  {built.weights_digest}")
    if built.defaults:
        written = ", ".join(f"{name} {value}" for name, value in built.defaults.items() if value != "")
        print(f"defaults        {written} (model-config.yaml)")
    for warning in built.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if built.packages_files:
        from pipeline.archive.target.targets import start_cost_seconds

        size = built.packages_size / 1e6
        print(f"packages        {size:.0f} MB, {built.packages_files} files; ", end="")
        print(f"the first picture comes about {start_cost_seconds():.1f} s later for them")


def inspect(
    file: Annotated[Path, typer.Argument(help="The archive.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List an archive's content and verify every byte of it; exit code 1 where something is wrong."""
    from pipeline.archive.inspection import inspect_archive
    from pipeline.cli.console import LiveProgress

    found = inspect_archive(file, LiveProgress())
    if json:
        _print_json(found)
    else:
        _print_text(found)
    if found.problems:
        sys.exit(1)


def convert(folder: Annotated[Path, typer.Argument(help="A diffusers folder.")]) -> None:
    """Write safetensors beside a model's pickle weights, without running any code in them."""
    from pipeline.archive.convert import convert_folder

    for path in convert_folder(folder):
        print(path)


def _stop(*_: object) -> NoReturn:
    """SIGTERM ends the command as Ctrl-C does, so that a half-written file is removed."""
    sys.exit(128 + signal.SIGTERM)


def _print_json(found: Inspection) -> None:
    import dataclasses
    import json

    document = dataclasses.asdict(found) | {"path": str(found.path), "ok": not found.problems}
    document["settings"] = _with_text_keys(document["settings"])
    print(json.dumps(document, indent=2, default=str))


def _with_text_keys(value: Any) -> Any:
    """The same value with every key as text: a key in YAML may be a date, and in JSON it may not."""
    if isinstance(value, dict):
        return {str(key): _with_text_keys(inner) for key, inner in value.items()}
    return [_with_text_keys(inner) for inner in value] if isinstance(value, list) else value


def _print_text(found: Inspection) -> None:
    import yaml

    print(f"{found.path}  {found.size:,} bytes, {len(found.files)} files")
    for file in found.files:
        print(f"  {file.sha256[:16]}  {file.size:>13,}  {file.path}")
    if found.files:
        print(f"archive digest  {found.archive_digest}")
        print(f"weights digest  {found.weights_digest}")
        for lora in found.loras:
            print(f"LoRA            {lora.name}  {lora.sha256[:16]}  default weight {lora.default_weight:g}")
        if checker := found.safety_checker:
            print(f"safety checker  {checker.sha256[:16]}  flagged pictures: {checker.action}")
        print("versions        " + ", ".join(f"{name} {version}" for name, version in found.versions.items()))
        print(yaml.safe_dump(dict(found.settings), sort_keys=False, allow_unicode=False), end="")
    for problem in found.problems:
        print(f"error: {problem}", file=sys.stderr)
    print("refused" if found.problems else "verified: every file matches MAR-INF/SHA256SUMS")
