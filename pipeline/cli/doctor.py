"""Commands: doctor, verify."""

from __future__ import annotations

import json as jsons
import sys
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import panels
from pipeline.cli.target import (
    ArchiveOption,
    CloudOption,
    ConfigOption,
    DeployOptions,
    JsonOption,
    ProfileOption,
    SetOption,
    connected,
    the_archive,
)
from pipeline.errors import MarqueeError

if TYPE_CHECKING:
    from pipeline.doctor.findings import Finding
    from pipeline.doctor.subject import Subject

_MARKS = {"ok": "  ok     ", "notice": "  notice ", "problem": "  PROBLEM"}


def register(app: typer.Typer) -> None:
    """Add this file's commands to the application."""
    app.command(rich_help_panel=panels.DEPLOY)(doctor)
    app.command(rich_help_panel=panels.DEPLOY)(verify)


def doctor(
    config: ConfigOption = None,
    cloud: CloudOption = None,
    profile: ProfileOption = None,
    archive: ArchiveOption = None,
    settings: SetOption = None,
    arguments: Annotated[
        Path | None, typer.Option("--arguments", help="Examine an SDK program's arguments (YAML) instead.")
    ] = None,
    torchserve: Annotated[
        Path | None, typer.Option("--config-properties", help="The image's own TorchServe configuration.")
    ] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Also start the archive here and draw.")] = False,
    fix: Annotated[
        bool, typer.Option("--fix", help="Repair the problems that can be repaired safely.")
    ] = False,
    on: Annotated[
        datetime | None, typer.Option("--date", formats=["%Y-%m-%d"], help="Judge as of this day.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the problems that a deployment would meet, each with its cure. Exit code 1 when there is one."""
    from pipeline.doctor.examine import examine, rehearse
    from pipeline.doctor.management import check_running_management

    options = DeployOptions(config, cloud, profile, settings or (), archive=archive)
    today = on.date() if on else date.today()
    findings, subject = _subject(options, arguments, torchserve, today)
    if subject is not None:
        findings += examine(subject, today)
        findings += check_running_management()
        findings += _cloud_findings(options, subject, quiet=json)
        findings += rehearse(subject) if serve else []
    _show(findings, json)
    mended = [finding.fix() for finding in findings if fix and finding.fix]
    for line in mended:
        print(f"  fixed   {line}", file=sys.stderr)
    if sum(finding.level == "problem" for finding in findings) > len(mended):
        sys.exit(1)


def _subject(
    options: DeployOptions, arguments: Path | None, torchserve: Path | None, today: date
) -> tuple[list[Finding], Subject | None]:
    """The subject to examine; None with the findings where the configuration has mistakes."""
    from pipeline.doctor.findings import known_failure, passed
    from pipeline.doctor.subject import read_arguments, subject_of

    if arguments is not None:
        return [], read_arguments(arguments)
    config, mistakes = options.judge(today)
    if mistakes:
        cure = "correct deploy.yaml or the flags"
        return [
            known_failure("configuration", "configuration", why=line, how=cure) for line in mistakes
        ], None
    archive = Path(config.archive) if config.archive else the_archive(config).path
    return [passed("configuration", f"{config.model} on {config.image_uri}")], subject_of(
        config, archive, torchserve
    )


def _cloud_findings(options: DeployOptions, subject: Subject, quiet: bool) -> list[Finding]:
    """The findings of the checks that ask the cloud; a cloud that does not answer is a finding too."""
    from pipeline.cloud.faults import FaultBook
    from pipeline.cloud.state import CloudFolder
    from pipeline.doctor.examine import examine_cloud
    from pipeline.doctor.findings import known_failure

    try:
        with connected(options, quiet=quiet) as (config, connection):
            book = FaultBook(CloudFolder().faults) if config.cloud == "local" else None
            exhausted = book is not None and any(fault.name == "quota-exhausted" for fault in book.all())
            return examine_cloud(connection, subject, exhausted)
    except MarqueeError as error:
        return [known_failure("cloud", "machine", why=str(error), how=error.cure or "see the message")]


def _show(findings: list[Finding], as_json: bool) -> None:
    if as_json:
        fields = ("check", "level", "sentence", "cure", "failure", "threads")
        print(jsons.dumps([{name: getattr(finding, name) for name in fields} for finding in findings]))
        return
    for finding in findings:
        threads = f"  [{', '.join(finding.threads)}]" if finding.threads else ""
        print(f"{_MARKS[finding.level]} {finding.check}: {finding.sentence}{threads}")
        if finding.cure:
            print(f"           cure: {finding.cure}")
    problems, notices = (
        sum(finding.level == level for finding in findings) for level in ("problem", "notice")
    )
    print(f"{problems} problem(s), {notices} notice(s)")


def verify(
    endpoint: Annotated[str | None, typer.Argument(help="The endpoint; deploy.yaml's if not given.")] = None,
    config: ConfigOption = None,
    cloud: CloudOption = None,
    archive: ArchiveOption = None,
    settings: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Ask an endpoint for the digest of the weights in its memory, and compare it with the archive's."""
    from pipeline.deploy.verify import verify as compare

    wanted = [*(settings or ()), *([f"endpoint={endpoint}"] if endpoint else [])]
    with connected(DeployOptions(config, cloud, settings=wanted, archive=archive), quiet=json) as (
        config_,
        connection,
    ):
        checked = compare(connection, config_, the_archive(config_))
    if json:
        print(jsons.dumps([vars(each) for each in checked]))
        return
    for each in checked:
        print(f"deployed model {each.deployed_model_id} serves weights {each.loaded_digest}")
        print(f"  the same as {each.compared_with}")
