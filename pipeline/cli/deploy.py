"""Commands: plan, deploy, promote, rollback, status, teardown."""

from __future__ import annotations

import dataclasses
import json as jsons
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.target import (
    ArchiveOption,
    Asked,
    CloudOption,
    ConfigOption,
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
    from pipeline.deploy.flow import Deployed
    from pipeline.deploy.plan import Plan
    from pipeline.deploy.status import Status

TrafficOption = Annotated[
    int | None, typer.Option("--traffic", help="Percent for the new model; less than 100 is a canary.")
]


def register(app: typer.Typer) -> None:
    """Add this file's commands to the application."""
    for command in (plan, deploy, promote, rollback, status, teardown):
        app.command()(command)


def plan(
    config: ConfigOption = None,
    cloud: CloudOption = None,
    profile: ProfileOption = None,
    traffic: TrafficOption = None,
    archive: ArchiveOption = None,
    settings: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Show what deploy would make, change and charge per hour; changes nothing."""
    from pipeline.deploy.plan import plan as make_plan

    asked = Asked(config, cloud, profile, settings or (), traffic, archive)
    with connected(asked, quiet=json) as (wanted, connection):
        made = make_plan(connection, wanted, the_archive(wanted))
    if json:
        told = {"changes": made.changes, "rehearsal": rehearsal_line(wanted)}
        print(jsons.dumps({**dataclasses.asdict(made), **told}, default=str))
    else:
        _print_plan(made)
        print(f"rehearsal: {rehearsal_line(wanted)}")


def _print_plan(plan: Plan) -> None:
    for action in plan.actions:
        print(f"  {action.verb:<7} {action.thing}: {action.detail}")
    if not plan.changes:
        print("nothing to do")
    if plan.price is None:
        print("price: not in the table for this machine; look it up before you deploy")
    else:
        print(
            f"price: ${plan.min_dollars:.2f} to ${plan.max_dollars:.2f} an hour while it is deployed"
            f" (checked {plan.price.checked_on}{'' if plan.price.verified else ', not verified'}:"
            f" {plan.price.source})"
        )
    if plan.running_dollars:
        print(f"running now on this endpoint: ${plan.running_dollars:.2f} an hour")


def deploy(
    config: ConfigOption = None,
    cloud: CloudOption = None,
    profile: ProfileOption = None,
    traffic: TrafficOption = None,
    archive: ArchiveOption = None,
    settings: SetOption = None,
) -> None:
    """Upload, register, deploy, ask for a picture, and only then move traffic. Run it again after a break."""
    from pipeline.cli.console import LiveProgress
    from pipeline.deploy.flow import deploy as make

    progress = LiveProgress()
    asked = Asked(config, cloud, profile, settings or (), traffic, archive)
    try:
        with connected(asked) as (wanted, connection):
            chosen = the_archive(wanted)
            _refuse_what_would_fail(wanted, chosen.path)
            _print_deployed(make(connection, wanted, chosen, progress))
            print(f"rehearsal {rehearsal_line(wanted)}")
    finally:
        progress.finish()


def _refuse_what_would_fail(config: DeployConfig, archive: Path) -> None:
    """What the doctor can see from here, before anything is paid for; here only the archive's fit."""
    from pipeline.doctor.content import check_fit
    from pipeline.doctor.examine import examine
    from pipeline.doctor.subject import subject_of

    subject = subject_of(config, archive)
    findings = examine(subject, date.today()) if config.cloud == "google" else check_fit(subject)
    for finding in findings:
        if finding.level == "notice":
            print(f"notice: {finding.sentence}\n  cure: {finding.cure}")
    problems = [finding for finding in findings if finding.level == "problem"]
    if problems:
        told = "".join(f"\n  - {finding.sentence} ({finding.cure})" for finding in problems)
        raise MarqueeError(f"this would fail on Google:{told}", cure="marquee doctor --cloud google")


def _print_deployed(deployed: Deployed) -> None:
    proof = deployed.proof
    print(f"archive   {deployed.uploaded.artifact_uri}  {deployed.uploaded.sent_bytes:,} bytes sent")
    print(f"model     {deployed.model} version {deployed.version}")
    print(f"endpoint  {deployed.endpoint}  deployed model {deployed.deployed_model_id}")
    print(f"picture   {proof.picture.width}x{proof.picture.height}, weights {proof.weights_digest[:12]}")
    print("traffic   " + ", ".join(f"{key}: {share} %" for key, share in deployed.traffic.items()))
    if deployed.kept:
        print(f"kept at 0 % for `marquee rollback`, and still charged: {', '.join(deployed.kept)}")
        print("  `marquee promote` removes it")


def promote(config: ConfigOption = None, cloud: CloudOption = None, settings: SetOption = None) -> None:
    """Give the newest deployed model all traffic and undeploy the others."""
    from pipeline.cli.console import LiveProgress
    from pipeline.deploy.traffic import promote as move

    with connected(Asked(config, cloud, settings=settings or ())) as (wanted, connection):
        chosen = move(connection, wanted, LiveProgress())
    print(f"deployed model {chosen.id} has all traffic")


def rollback(config: ConfigOption = None, cloud: CloudOption = None, settings: SetOption = None) -> None:
    """Give the deployed model before the newest all traffic and undeploy the newest."""
    from pipeline.cli.console import LiveProgress
    from pipeline.deploy.traffic import rollback as move

    with connected(Asked(config, cloud, settings=settings or ())) as (wanted, connection):
        chosen = move(connection, wanted, LiveProgress())
    print(f"deployed model {chosen.id} has all traffic again")


def status(
    config: ConfigOption = None,
    cloud: CloudOption = None,
    settings: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Show the model's versions, the endpoint's deployed models, traffic, machines and cost per hour."""
    from pipeline.deploy.status import status as read

    with connected(Asked(config, cloud, settings=settings or ()), quiet=json) as (wanted, connection):
        found = read(connection, wanted)
    if json:
        print(jsons.dumps({**dataclasses.asdict(found), "dollars_per_hour": found.dollars_per_hour}))
    else:
        _print_status(found)


def _print_status(status: Status) -> None:
    if not status.versions:
        print(f"model {status.model}: not registered")
    for version in status.versions:
        aliases = ", ".join(version.aliases)
        print(f"model {status.model}@{version.version}  weights {version.weights_digest[:12]}  {aliases}")
    if status.endpoint is None:
        print("endpoint: none")
        return
    print(f"endpoint {status.endpoint} ({status.endpoint_kind})")
    for model in status.deployed:
        price = "price unknown" if model.dollars_per_hour is None else f"${model.dollars_per_hour:.2f}/h each"
        print(
            f"  {model.traffic:>3} %  deployed model {model.id}  version {model.version}  {model.machine} + "
            f"{model.accelerator}  {model.min_replicas} to {model.max_replicas} replicas  {price}"
        )
    print(f"while deployed: ${status.dollars_per_hour:.2f} an hour")


def teardown(config: ConfigOption = None, cloud: CloudOption = None, settings: SetOption = None) -> None:
    """Remove what marquee made for this configuration and nothing else, and check that it is gone."""
    from pipeline.cli.console import LiveProgress
    from pipeline.deploy.teardown import teardown as remove

    with connected(Asked(config, cloud, settings=settings or ())) as (wanted, connection):
        torn = remove(connection, wanted, LiveProgress())
    for thing in torn.removed:
        print(f"  removed {thing}")
    for thing in torn.left:
        print(f"  left {thing}")
    print("nothing of marquee's is left" if torn.removed else "there was nothing to remove")
