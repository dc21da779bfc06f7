"""Commands: image, rehearse."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import panels


def register(app: typer.Typer) -> None:
    """Add this file's commands to the application."""
    app.command(rich_help_panel=panels.BUILD)(image)
    app.command(rich_help_panel=panels.BUILD)(rehearse)


def image(
    out: Annotated[Path, typer.Option(help="The folder for the Dockerfile and its context.")] = Path(
        "out/image"
    ),
    gpu: Annotated[str, typer.Option(help="p100, t4, l4 or cpu; decides the build of torch.")] = "t4",
    tag: Annotated[str, typer.Option(help="The image's name.")] = "marquee:latest",
    no_build: Annotated[bool, typer.Option("--no-build", help="Only write the files.")] = False,
) -> None:
    """Write marquee's own serving image, for the time after the prebuilt containers; build it if possible."""
    from pipeline.archive.build import repository_root
    from pipeline.containers.image import build_image, find_builder, write_context

    context = write_context(out, gpu, repository_root() / "model_artifacts" / "log4j2.xml")
    print(f"wrote {context.folder}/Dockerfile and its context (torch for {gpu})")
    builder = find_builder()
    if no_build:
        return
    if builder is None:
        print("neither docker nor buildah is installed here; build it with Google Cloud Build:")
        print(f"  gcloud builds submit --config {context.folder}/cloudbuild.yaml {context.folder}")
        return
    build_image(context, builder, tag)
    print(f"built {tag}; run it: {builder} run --gpus all -p 8080:8080 -v $PWD/model_artifacts:/models {tag}")


def rehearse(
    model: Annotated[
        Path | None, typer.Option(help="A diffusers folder [default: the embedded one].")
    ] = None,
    python: Annotated[
        Path | None, typer.Option(help="A Python 3.9 [default: $PYTHON39, or one of the PATH or pyenv].")
    ] = None,
    torchserve: Annotated[
        list[str] | None,
        typer.Option(help="A TorchServe version; may be repeated [default: three versions]."),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="A Markdown page to write the table into.")] = None,
) -> None:
    """Serve an archive in a copy of the prebuilt container's environment (about 6 GB) and check the picture.

    The copy, called the twin, is kept, and from then on the local cloud runs such archives in it. Exit code 1
    where a picture is wrong.
    """
    from pipeline.archive.build import EMBEDDED_MODEL, repository_root
    from pipeline.cli.console import LiveProgress
    from pipeline.containers import rehearse as steps
    from pipeline.containers.twin import TORCHSERVE_VERSIONS, prepare_twin

    versions = tuple(torchserve or TORCHSERVE_VERSIONS)
    steps.check(model, versions, report)
    twin = prepare_twin(python, versions, LiveProgress())
    built, found = steps.rehearse(model or repository_root() / EMBEDDED_MODEL, versions, twin)
    table = steps.report(built, found, twin)
    print(table, end="")
    if report is not None:
        steps.write_page(report, table)
    if not all(one.is_right for one in found):
        sys.exit(1)
