"""Commands: plan, deploy, promote, rollback, status, teardown. Each change is planned, shown, carried out.

Exit codes: 1 failed or refused; 3 unproven (deploy: the new model was not reached in time); 4 unknown (no
answer from the cloud or the model). After 3 and 4 everything is left as it is; run it again.
"""

from __future__ import annotations

import dataclasses
import json as jsons
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import panels
from pipeline.cli.plans import print_deployed, print_plan, print_status, print_whole
from pipeline.cli.target import (
    ArchiveOption,
    CloudOption,
    ConfigOption,
    DeployOptions,
    JsonOption,
    ProfileOption,
    SetOption,
    connected,
    rehearsal_line,
    the_archive,
)
from pipeline.errors import MarqueeError

if TYPE_CHECKING:
    from pipeline.deploy.config import DeployConfig

TrafficOption = Annotated[
    int | None, typer.Option("--traffic", help="Percent for the new model; less than 100 is a canary.")
]
AdoptOption = Annotated[
    bool,
    typer.Option(
        "--adopt", help="Use an endpoint that marquee did not make, beside the models that serve there."
    ),
]
UnprovedOption = Annotated[
    bool, typer.Option("--unproved", help="Promote a canary for which no run has had the right picture.")
]
DiscardOption = Annotated[
    bool,
    typer.Option(
        "--discard", help="Undeploy the model that was in service before, instead of keeping it at 0 %."
    ),
]
_EXIT_UNPROVEN, _EXIT_UNKNOWN = 3, 4


def register(app: typer.Typer) -> None:
    """Add this file's commands to the application."""
    for command in (plan, deploy, promote, rollback, status, teardown):
        app.command(rich_help_panel=panels.DEPLOY)(command)


def plan(
    config: ConfigOption = None,
    cloud: CloudOption = None,
    profile: ProfileOption = None,
    traffic: TrafficOption = None,
    archive: ArchiveOption = None,
    settings: SetOption = None,
    adopt: AdoptOption = False,
    json: JsonOption = False,
) -> None:
    """Show what deploy would do, in order, and what it costs per hour; changes nothing."""
    from pipeline.cli.console import LiveProgress
    from pipeline.deploy.flow import plan as make_plan

    options = DeployOptions(config, cloud, profile, settings or (), traffic, archive)
    with connected(options, quiet=json) as (wanted, connection):
        chosen = the_archive(wanted)
        _refuse_what_would_fail(wanted, chosen.path)
        made = make_plan(connection, wanted, chosen, adopt, LiveProgress())
    if json:
        print(jsons.dumps({**made.document(), "rehearsal": rehearsal_line(wanted)}, default=str))
    else:
        print_whole(made, rehearsal_line(wanted))


def deploy(
    config: ConfigOption = None,
    cloud: CloudOption = None,
    profile: ProfileOption = None,
    traffic: TrafficOption = None,
    archive: ArchiveOption = None,
    settings: SetOption = None,
    adopt: AdoptOption = False,
) -> None:
    """Upload, register, deploy, ask for a picture, and only then move traffic. Run it again after a break.

    Exit code 3: the new model was not reached in time; 4: no answer. Both leave everything as it is.
    """
    from pipeline.cli.console import LiveProgress
    from pipeline.deploy.flow import carry_out_deploy, check_local
    from pipeline.deploy.flow import plan as make_plan

    progress = LiveProgress()
    options = DeployOptions(config, cloud, profile, settings or (), traffic, archive)
    try:
        with _undecided_exit(), connected(options) as (wanted, connection):
            chosen = the_archive(wanted)
            _refuse_what_would_fail(wanted, chosen.path)
            supplies = check_local(wanted, chosen)
            made = make_plan(connection, wanted, chosen, adopt, progress)
            print_whole(made, rehearsal_line(wanted))
            print_deployed(carry_out_deploy(connection, wanted, made, supplies, progress))
    finally:
        progress.finish()


@contextmanager
def _undecided_exit() -> Iterator[None]:
    """End with exit code 3 or 4 where it is not known whether the new model is right."""
    from pipeline.deploy.answers import Unanswered
    from pipeline.deploy.smoke import Unknown, Unproven

    try:
        yield
    except (Unproven, Unknown, Unanswered) as error:
        print(f"error: {error}", file=sys.stderr)
        if error.cure:
            print(f"  cure: {error.cure}", file=sys.stderr)
        code = _EXIT_UNPROVEN if isinstance(error, Unproven) else _EXIT_UNKNOWN
        raise typer.Exit(code) from error


def _refuse_what_would_fail(config: DeployConfig, archive: Path) -> None:
    """Stop on problems that the doctor finds without the cloud; in a local run only on a misfit archive."""
    from pipeline.doctor.content import check_fit
    from pipeline.doctor.examine import examine
    from pipeline.doctor.subject import subject_of

    subject = subject_of(config, archive)
    findings = examine(subject, date.today()) if config.cloud == "google" else check_fit(subject)
    for finding in findings:
        if finding.level == "notice":
            print(f"notice: {finding.sentence}\n  cure: {finding.cure}", file=sys.stderr)
    problems = [finding for finding in findings if finding.level == "problem"]
    if problems:
        told = "".join(f"\n  - {finding.sentence} ({finding.cure})" for finding in problems)
        raise MarqueeError(f"this would fail on Google:{told}", cure="marquee doctor --cloud google")


def promote(
    config: ConfigOption = None,
    cloud: CloudOption = None,
    settings: SetOption = None,
    unproved: UnprovedOption = False,
    discard: DiscardOption = False,
) -> None:
    """Put the canary into service; the model before it stays at 0 % for a rollback."""
    from pipeline.cli.console import LiveProgress
    from pipeline.deploy.traffic import carry_out_switch, promotion

    progress = LiveProgress()
    with (
        _undecided_exit(),
        connected(DeployOptions(config, cloud, settings=settings or ())) as (wanted, connection),
    ):
        made = promotion(connection, wanted, progress, unproved, discard)
        print_plan(made)
        carry_out_switch(connection, wanted, made, progress)
    print("done")


def rollback(config: ConfigOption = None, cloud: CloudOption = None, settings: SetOption = None) -> None:
    """Withdraw the canary; without one, put the model before (the predecessor) back into service."""
    from pipeline.cli.console import LiveProgress
    from pipeline.deploy.traffic import carry_out_switch, withdrawal

    progress = LiveProgress()
    with (
        _undecided_exit(),
        connected(DeployOptions(config, cloud, settings=settings or ())) as (wanted, connection),
    ):
        made = withdrawal(connection, wanted, progress)
        print_plan(made)
        carry_out_switch(connection, wanted, made, progress)
    print("done")


def status(
    config: ConfigOption = None,
    cloud: CloudOption = None,
    settings: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Show the model's versions, the endpoint's deployed models, traffic, machines and cost per hour."""
    from pipeline.deploy.status import status as read

    with connected(DeployOptions(config, cloud, settings=settings or ()), quiet=json) as (wanted, connection):
        found = read(connection, wanted)
    if json:
        print(jsons.dumps({**dataclasses.asdict(found), "dollars_per_hour": found.dollars_per_hour}))
    else:
        print_status(found)


def teardown(config: ConfigOption = None, cloud: CloudOption = None, settings: SetOption = None) -> None:
    """Remove what marquee made for this configuration and nothing else, and check that it is gone."""
    from pipeline.cli.console import LiveProgress
    from pipeline.deploy.teardown import carry_out_teardown, removal

    progress = LiveProgress()
    with (
        _undecided_exit(),
        connected(DeployOptions(config, cloud, settings=settings or ())) as (wanted, connection),
    ):
        made = removal(connection, wanted, progress)
        print_plan(made)
        result = carry_out_teardown(connection, wanted, made, progress)
    for thing in result.removed:
        print(f"  removed {thing}")
    for thing in result.left:
        print(f"  left {thing}")
    if result.removed and not result.left:
        print("nothing of marquee's is left")
    elif result.removed:
        print("the rest is gone")
    else:
        print("there was nothing to remove")
