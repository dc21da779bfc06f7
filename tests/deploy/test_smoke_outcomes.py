"""A smoke test ends proved, unproven, unknown or failed; only a failed model is taken back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import httpx
import pytest
from rehearsal_cloud import Configure, RehearsalCloud

from pipeline.cli import app
from pipeline.deploy.archive_file import ArchiveFile
from pipeline.deploy.connection import Connection
from pipeline.deploy.flow import deploy
from pipeline.deploy.labels import PROVED_LABEL
from pipeline.deploy.roles import without_roles
from pipeline.deploy.smoke import SmokeFailed, Unknown, Unproven
from pipeline.deploy.survey import survey
from pipeline.deploy.traffic import promote
from pipeline.errors import MarqueeError
from pipeline.progress import Silent

QUIET = Silent()
BRIEF = {"seconds": 1, "percent": 1}


def state_of(connection: Connection, config: Any) -> Any:
    endpoint = survey(connection, config).endpoint
    assert endpoint is not None
    return endpoint


@pytest.fixture(autouse=True)
def seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """With this seed the first ten requests all go to the model that has 99 %."""
    monkeypatch.setenv("MARQUEE_TRAFFIC_SEED", "1")


def test_a_canary_that_no_request_reached_is_unproven_and_stays(
    cloud: RehearsalCloud,
    connection: Connection,
    configure: Configure,
    archive: ArchiveFile,
    other_archive: ArchiveFile,
) -> None:
    first = deploy(connection, configure(), archive, QUIET).deployed_model_id
    cloud.painters[0].seconds = 0.4
    with pytest.raises(Unproven, match="unproven") as raised:
        deploy(connection, configure(smoke=BRIEF, traffic=20), other_archive, QUIET)
    assert "smoke.percent" in str(raised.value.cure)
    before = state_of(connection, configure())
    assert sorted(before.split.values()) == [1, 99]
    with pytest.raises(MarqueeError, match="never proved"):
        promote(connection, configure(), QUIET)
    cloud.painters[0].seconds = 0.0
    made = deploy(
        connection, configure(smoke={"seconds": 60, "percent": 50}, traffic=20), other_archive, QUIET
    )
    after = state_of(connection, configure())
    assert (after.roles.in_service, after.roles.canary) == (first, made.deployed_model_id)
    assert [model.id for model in after.deployed] == [model.id for model in before.deployed]
    promote(connection, configure(), QUIET)
    assert state_of(connection, configure()).roles.in_service == made.deployed_model_id


def test_unproven_and_unknown_have_exit_codes_of_their_own(
    cloud: RehearsalCloud,
    connection: Connection,
    configure: Configure,
    archive: ArchiveFile,
    other_archive: ArchiveFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MARQUEE_CLOUD", str(cloud.folder.path))
    monkeypatch.chdir(tmp_path)
    deploy(connection, configure(), archive, QUIET)
    cloud.painters[0].seconds = 0.4
    words = ["deploy", "--profile", "p100", "--traffic", "20", "--set", f"archive={other_archive.path}"]
    brief = ["--set", "smoke.seconds=1", "--set", "smoke.percent=1"]
    assert app([*words, *brief], standalone_mode=False) == 3
    cloud.fault("unavailable,target=RawPredict/*,count=100")
    assert app([*words, *brief], standalone_mode=False) == 4
    assert sorted(state_of(connection, configure()).split.values()) == [1, 99]


@pytest.mark.parametrize(
    "trouble", ["unavailable,target=RawPredict/*,count=100", "scaled-to-zero,seconds=900"]
)
def test_a_busy_service_is_unknown_and_the_next_run_goes_on(
    cloud: RehearsalCloud, connection: Connection, configure: Configure, archive: ArchiveFile, trouble: str
) -> None:
    cloud.fault(trouble)
    with pytest.raises(Unknown, match="unknown"):
        deploy(connection, configure(smoke=BRIEF), archive, QUIET)
    cloud.book.clear()
    (there,) = state_of(connection, configure()).deployed
    assert not there.proved
    assert deploy(connection, configure(), archive, QUIET).deployed_model_id == there.id
    assert state_of(connection, configure()).deployed[0].proved


def test_a_stopped_network_takes_nothing_back_from_production(
    cloud: RehearsalCloud, connection: Connection, configure: Configure, archive: ArchiveFile
) -> None:
    """Finding 3: one version on two kinds of hardware, deployed again while predictions cannot pass."""
    t4, l4 = {"accelerator": "NVIDIA_TESLA_T4"}, {"accelerator": "NVIDIA_L4", "machine": "g2-standard-8"}
    first = deploy(connection, configure(**t4), archive, QUIET).deployed_model_id
    canary = deploy(connection, configure(**l4, traffic=10), archive, QUIET).deployed_model_id
    before = state_of(connection, configure())
    assert before.split == {first: 90, canary: 10}
    assert all(model.proved for model in before.deployed)
    with httpx.Client(proxy="http://127.0.0.1:9", trust_env=False) as nowhere:
        cut_off = dataclasses.replace(connection, web=nowhere)
        for config in (configure(**t4, smoke=BRIEF), configure(**l4, traffic=10, smoke=BRIEF)):
            with pytest.raises(Unknown, match="cannot be reached"):
                deploy(cut_off, config, archive, QUIET)
            assert state_of(connection, configure()) == before


def test_what_served_is_not_taken_back_when_its_container_fails_later(
    cloud: RehearsalCloud,
    connection: Connection,
    configure: Configure,
    archive: ArchiveFile,
    other_archive: ArchiveFile,
) -> None:
    deploy(connection, configure(), archive, QUIET)
    deploy(connection, configure(traffic=30), other_archive, QUIET)
    before = state_of(connection, configure())
    for painter in cloud.painters:
        painter.refusal = (500, {"message": "out of memory"})
    for each, traffic in ((archive, 100), (other_archive, 30)):
        with pytest.raises(SmokeFailed, match="out of memory"):
            deploy(connection, configure(traffic=traffic), each, QUIET)
        assert state_of(connection, configure()) == before


def test_a_proof_is_of_one_deployed_model_only(
    connection: Connection,
    cloud: RehearsalCloud,
    configure: Configure,
    archive: ArchiveFile,
    other_archive: ArchiveFile,
) -> None:
    """The same archive on the same hardware, undeployed and deployed again, has to be proved again."""
    deploy(connection, configure(), archive, QUIET)
    canary = deploy(connection, configure(traffic=30), other_archive, QUIET).deployed_model_id
    name = connection.endpoint_name("marquee")
    rest = {id_: 100 for id_ in state_of(connection, configure()).split if id_ != canary}
    connection.endpoints.undeploy_model(endpoint=name, deployed_model_id=canary, traffic_split=rest).result()
    cloud.painter = {"flat": True}
    with pytest.raises(MarqueeError, match=f"one flat colour.*\n.*taken back: deployed model {canary}"):
        deploy(connection, configure(traffic=30), other_archive, QUIET)
    assert state_of(connection, configure()).split == rest


def test_an_older_marquees_proof_on_the_version_counts(
    connection: Connection, configure: Configure, archive: ArchiveFile, other_archive: ArchiveFile
) -> None:
    """It noted no roles and one proof per version; the canary it left can be promoted."""
    first = deploy(connection, configure(), archive, QUIET).deployed_model_id
    canary = deploy(connection, configure(traffic=30), other_archive, QUIET).deployed_model_id
    endpoint = connection.endpoints.get_endpoint(name=connection.endpoint_name("marquee"))
    endpoint.labels = without_roles(dict(endpoint.labels))
    connection.endpoints.update_endpoint(endpoint=endpoint, update_mask={"paths": ["labels"]})
    with pytest.raises(MarqueeError, match="never proved"):
        promote(connection, configure(), QUIET)
    version = connection.models.get_model(name=f"{connection.model_name('marquee')}@2")
    version.name, version.labels = (
        f"{connection.model_name('marquee')}@2",
        {**version.labels, PROVED_LABEL: canary},
    )
    connection.models.update_model(model=version, update_mask={"paths": ["labels"]})
    promote(connection, configure(), QUIET)
    after = state_of(connection, configure())
    assert (after.roles.in_service, after.roles.predecessor) == (canary, first)
