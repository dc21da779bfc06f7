"""Waiting ends in time and says how it goes on; an interrupted switch is finished by the next run."""

from __future__ import annotations

import pytest
from rehearsal_cloud import Configure, RehearsalCloud

from pipeline.deploy.answers import Unanswered
from pipeline.deploy.archive_file import ArchiveFile
from pipeline.deploy.config import DeployConfig
from pipeline.deploy.connection import Connection, connect
from pipeline.deploy.flow import deploy
from pipeline.deploy.plan import Traffic
from pipeline.deploy.roles import Roles
from pipeline.deploy.rollout import set_traffic
from pipeline.deploy.smoke import Unknown
from pipeline.deploy.status import status
from pipeline.deploy.survey import survey
from pipeline.deploy.teardown import leftovers, teardown
from pipeline.deploy.traffic import promote, rollback
from pipeline.deploy.verify import verify
from pipeline.errors import MarqueeError
from pipeline.progress import Silent

QUIET = Silent()


def test_an_operation_that_takes_too_long_goes_on_and_a_rerun_joins_it(
    cloud: RehearsalCloud, connection: Connection, configure: Configure, archive: ArchiveFile
) -> None:
    cloud.start_seconds = 2.5
    late = r"not done after 1 s.*it continues in the cloud: projects/"
    with (
        connect(configure(operation_timeout=1), cloud.running, {}) as impatient,
        pytest.raises(Unanswered, match=late) as raised,
    ):
        deploy(impatient, configure(), archive, QUIET)
    assert "waits for it" in str(raised.value.cure)
    deploy(connection, configure(), archive, QUIET)
    assert len(cloud.painters) == 1
    assert cloud.book.calls.count("DeployModel/marquee") == 1


def switched(connection: Connection, config: DeployConfig) -> list[tuple[str, int, str]]:
    return [(model.id, model.traffic, model.role) for model in status(connection, config).deployed]


@pytest.mark.parametrize("call", ["UpdateEndpoint", "MergeVersionAliases", "UndeployModel"])
@pytest.mark.parametrize("command", [promote, rollback])
def test_a_switch_that_broke_off_is_finished_by_the_next_run(
    cloud: RehearsalCloud,
    connection: Connection,
    configure: Configure,
    archive: ArchiveFile,
    other_archive: ArchiveFile,
    command,
    call: str,
) -> None:
    """v1 in service, v2 predecessor, and for a promote v2 as canary with v1 in service and discarded."""
    first = deploy(connection, configure(), archive, QUIET).deployed_model_id
    second = deploy(connection, configure(traffic=20 if command is promote else 100), other_archive, QUIET)
    more = {"discard": True} if command is promote else {}
    cloud.fault(f"unavailable,target={call}/*")
    with pytest.raises(Unanswered):
        command(connection, configure(), QUIET, **more)
    command(connection, configure(), QUIET, **more)
    chosen = second.deployed_model_id if command is promote else first
    assert switched(connection, configure()) == [(chosen, 100, "in service")]
    with pytest.raises(MarqueeError, match=r"no canary to promote|nothing to roll back to"):
        command(connection, configure(), QUIET)


@pytest.mark.parametrize(
    "call",
    ["UploadModel", "DeployModel", "RawPredict", "UpdateEndpoint", "MergeVersionAliases", "UndeployModel"],
)
@pytest.mark.parametrize("traffic", [10, 100])
def test_a_replacement_that_broke_off_is_finished_by_the_next_run(
    cloud: RehearsalCloud,
    connection: Connection,
    configure: Configure,
    archive: ArchiveFile,
    other_archive: ArchiveFile,
    third_archive: ArchiveFile,
    call: str,
    traffic: int,
) -> None:
    """v1 in service and v2 canary; v3 takes the place of one of them, with a break at every kind of call."""
    first = deploy(connection, configure(), archive, QUIET).deployed_model_id
    deploy(connection, configure(traffic=20), other_archive, QUIET)
    cloud.fault(f"unavailable,target={call}/*,count={30 if call == 'RawPredict' else 1}")
    config = configure(traffic=traffic, smoke={"seconds": 1 if call == "RawPredict" else 30, "percent": 50})
    if call == "MergeVersionAliases" and traffic < 100:
        deploy(connection, config, third_archive, QUIET)
    else:
        with pytest.raises((Unanswered, Unknown)):
            deploy(connection, config, third_archive, QUIET)
    cloud.book.clear()
    third = deploy(connection, configure(traffic=traffic), third_archive, QUIET).deployed_model_id
    assert switched(connection, configure()) == (
        [(first, 0, "predecessor"), (third, 100, "in service")]
        if traffic == 100
        else [(first, 90, "in service"), (third, 10, "canary")]
    )
    assert len(survey(connection, configure()).versions) == 3


@pytest.mark.parametrize("call", ["UndeployModel", "DeleteEndpoint", "DeleteModel"])
def test_a_teardown_that_broke_off_is_finished_by_the_next_run(
    cloud: RehearsalCloud, connection: Connection, configure: Configure, archive: ArchiveFile, call: str
) -> None:
    deploy(connection, configure(), archive, QUIET)
    cloud.fault(f"unavailable,target={call}/*")
    with pytest.raises(Unanswered):
        teardown(connection, configure(), QUIET)
    teardown(connection, configure(), QUIET)
    assert leftovers(connection, configure()) == []


def test_verify_without_traffic_is_a_sentence(
    connection: Connection, configure: Configure, archive: ArchiveFile
) -> None:
    deployed_id = deploy(connection, configure(), archive, QUIET).deployed_model_id
    endpoint = connection.endpoints.get_endpoint(name=connection.endpoint_name("marquee"))
    off = Traffic(thing="", detail="", split={}, roles=Roles(deployed_id), command="test")
    set_traffic(connection, endpoint, off)
    with pytest.raises(MarqueeError, match=r"has traffic: deployed model .* 0 %"):
        verify(connection, configure(), archive)
