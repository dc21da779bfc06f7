"""Deploy: check this machine's files, survey the cloud, make a plan, carry it out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.deploy.answers import Unanswered, translating_google_errors
from pipeline.deploy.archive_file import ArchiveFile
from pipeline.deploy.carry_out import Execution, Supplies
from pipeline.deploy.config import DeployConfig
from pipeline.deploy.connection import Connection
from pipeline.deploy.plan import Plan, Register
from pipeline.deploy.planning import plan_deploy
from pipeline.deploy.smoke import Proof, Unknown, Unproven
from pipeline.deploy.smoke_picture import read_expected
from pipeline.deploy.survey import survey_archive, survey_settled
from pipeline.deploy.undo import container_lines, take_back
from pipeline.errors import MarqueeError
from pipeline.progress import Progress, Silent


@dataclass(frozen=True)
class Uploaded:
    """The archive's place (gs://BUCKET/FOLDER) and the number of bytes that this run sent."""

    artifact_uri: str
    sent_bytes: int


@dataclass(frozen=True)
class Deployed:
    """The result of a deploy. ``traffic`` is percent by deployed model id; ``kept`` ones have no traffic."""

    uploaded: Uploaded
    model: str
    version: str
    endpoint: str
    deployed_model_id: str
    proof: Proof
    traffic: dict[str, int]
    role: str
    kept: tuple[str, ...]


def check_local(config: DeployConfig, archive: ArchiveFile) -> Supplies:
    """Read every file that a deploy needs, completely, before the first call to a cloud.

    Raises MarqueeError when the archive or ``smoke.expected`` cannot be read.
    """
    try:
        archive.crc32c  # noqa: B018 - computed here once; the upload and the survey compare with it
    except OSError as error:
        raise MarqueeError(
            f"{archive.path} cannot be read: {error.strerror}", cure="marquee build"
        ) from error
    expected = read_expected(Path(config.smoke.expected)) if config.smoke.expected else None
    return Supplies(archive, expected)


def plan(
    connection: Connection,
    config: DeployConfig,
    archive: ArchiveFile,
    adopt: bool = False,
    progress: Progress | None = None,
) -> Plan:
    """The plan of a deploy. Waits for operations that an earlier run began; changes nothing.

    Raises MarqueeError when the deploy must not begin.
    """
    check_local(config, archive)
    found = survey_settled(connection, config, progress or Silent())
    found = replace(found, stored=survey_archive(connection, config, archive))
    return plan_deploy(config, archive, found, adopt)


def deploy(
    connection: Connection,
    config: DeployConfig,
    archive: ArchiveFile,
    progress: Progress,
    adopt: bool = False,
) -> Deployed:
    """Plan and carry out; see ``carry_out_deploy``."""
    made = plan(connection, config, archive, adopt, progress)
    return carry_out_deploy(connection, config, made, check_local(config, archive), progress)


def carry_out_deploy(
    connection: Connection, config: DeployConfig, made: Plan, supplies: Supplies, progress: Progress
) -> Deployed:
    """Carry out the plan's actions in order.

    Raises Unproven, Unknown or Unanswered and leaves everything in place: nothing has failed then. Otherwise
    raises MarqueeError with the last lines of the container's log, after removing what this run created and
    what never served.
    """
    run = Execution(connection, config, progress, made.split_before, supplies)
    for action in made.actions:
        try:
            run.carry_out(action)
        except (Unanswered, Unproven, Unknown):  # nothing has failed, so the next run can use it
            raise
        except MarqueeError as error:
            if run.proof is not None or not _is_registered(made, run) or not made.on_failure:
                raise
            raise _taken_back(run, made, error) from error
    return _deployed(run, made)


def _is_registered(made: Plan, run: Execution) -> bool:
    """Whether the version is registered; before that there is nothing to remove."""
    return run.version_id is not None or not any(isinstance(action, Register) for action in made.actions)


def _taken_back(run: Execution, made: Plan, error: MarqueeError) -> MarqueeError:
    lines = container_lines(run.connection, run.config.endpoint, made.deployed_id)
    try:
        with translating_google_errors("taking back what was made"):
            gone = take_back(run, made.on_failure)
        taken = f"\n  taken back: {', '.join(gone)}" if gone else ""
    except MarqueeError as trouble:
        taken = f"\n  not everything could be removed: {trouble}; `marquee teardown` removes the rest"
    told = "".join(f"\n  container: {line}" for line in lines)
    return MarqueeError(f"{error}{told}{taken}", cure=error.cure)


def _deployed(run: Execution, made: Plan) -> Deployed:
    assert run.proof is not None, "a deploy's plan asks for a picture"
    version = run.version_id or made.version_id
    assert version is not None, "a deploy has a version, found or registered"
    ending = {fate.id: fate for fate in made.fates}
    return Deployed(
        uploaded=Uploaded(made.archive_uri.rpartition("/")[0], run.sent_bytes),
        model=run.config.model,
        version=version,
        endpoint=run.config.endpoint,
        deployed_model_id=made.deployed_id,
        proof=run.proof,
        traffic=run.split,
        role=ending[made.deployed_id].role_after,
        kept=tuple(
            id_ for id_, fate in ending.items() if fate.role_after == "predecessor" and not fate.after
        ),
    )
