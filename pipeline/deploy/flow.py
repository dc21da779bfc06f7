"""Deploy: what is wrong on this machine first, then one survey, one plan, and the plan carried out."""

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
    """Where the archive lies (gs://BUCKET/FOLDER) and how many bytes this run sent for it."""

    artifact_uri: str
    sent_bytes: int


@dataclass(frozen=True)
class Deployed:
    """What deploy ends with. ``traffic`` is percent by deployed model id; ``kept`` ones only cost."""

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
    """Read what a deploy needs from this machine, whole, before the first call to a cloud.

    Raises MarqueeError when the archive or ``smoke.expected`` cannot be read.
    """
    try:
        archive.crc32c  # noqa: B018 - reads the file once; the upload and the survey compare with it
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
    """What a deploy does. Nothing is changed; what an earlier run began is waited for.

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
    """Do what the plan says, in order.

    Raises Unproven, Unknown or Unanswered, having left everything as it is; any other MarqueeError with the
    container's words, having taken back what never served.
    """
    run = Execution(connection, config, progress, made.split_before, supplies)
    for action in made.actions:
        try:
            run.carry_out(action)
        except (Unanswered, Unproven, Unknown):  # nothing has failed; taking it back would waste it
            raise
        except MarqueeError as error:
            if run.proof is not None or not _is_registered(made, run) or not made.on_failure:
                raise
            raise _taken_back(run, made, error) from error
    return _deployed(run, made)


def _is_registered(made: Plan, run: Execution) -> bool:
    """Whether the plan is past its registration: only then there is something to take back."""
    return run.version_id is not None or not any(isinstance(action, Register) for action in made.actions)


def _taken_back(run: Execution, made: Plan, error: MarqueeError) -> MarqueeError:
    lines = container_lines(run.connection, run.config.endpoint, made.deployed_id)
    try:
        with translating_google_errors("taking back what was made"):
            gone = take_back(run, made.on_failure)
        taken = f"\n  taken back: {', '.join(gone)}" if gone else ""
    except MarqueeError as trouble:
        taken = f"\n  not all of it could be taken back: {trouble}; `marquee teardown` removes it"
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
