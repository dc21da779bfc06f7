"""No command changes what marquee did not make, whatever its name is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from foreign_models import deploy_foreign, make_foreign_endpoint
from rehearsal_cloud import RehearsalCloud

from pipeline.cli import app
from pipeline.deploy.archive_file import ArchiveFile
from pipeline.deploy.connection import Connection
from pipeline.errors import MarqueeError

CHANGING = ("Upload", "Create", "Deploy", "Update", "Delete", "Undeploy", "Merge", "Mutate")


@pytest.fixture
def command(
    cloud: RehearsalCloud, archive: ArchiveFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Run a command in this process; ``deploy`` gets its archive."""
    monkeypatch.setenv("MARQUEE_CLOUD", str(cloud.folder.path))
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> None:
        more = ("--profile", "p100", "--set", f"archive={archive.path}") if words[0] == "deploy" else ()
        app([*words, *more], standalone_mode=False)

    return run


def endpoint_of(connection: Connection) -> Any:
    return connection.endpoints.get_endpoint(name=connection.endpoint_name("marquee"))


@pytest.mark.parametrize("name", ["marquee", "theirs"])
def test_a_foreign_model_in_service_survives_every_command(
    cloud: RehearsalCloud, connection: Connection, command: Callable[..., None], name: str, capsys: Any
) -> None:
    make_foreign_endpoint(connection)
    theirs = deploy_foreign(connection, name, "marquee")
    cloud.book.calls.clear()
    serves = f"{theirs} ({name} version 1, not marquee's): 100 %"
    for refused in ("deploy", "promote", "rollback"):
        with pytest.raises(MarqueeError) as raised:
            command(refused)
        told = str(raised.value)
        assert serves in told or (name == "marquee" and "model marquee exists" in told)
    command("teardown")
    told = capsys.readouterr().out
    assert serves in told
    assert "endpoint marquee: it was not made by marquee" in told
    assert [call for call in cloud.book.calls if call.startswith(CHANGING)] == []
    assert {model.id for model in endpoint_of(connection).deployed_models} == {theirs}
    assert dict(endpoint_of(connection).traffic_split) == {theirs: 100}
    assert connection.models.get_model(name=connection.model_name(name)).version_id == "1"
    names = [bucket.name for bucket in connection.storage.list_buckets()]
    assert names == ["somebodys-bucket"]


def test_adopted_beside_a_foreign_model_and_gone_again(
    connection: Connection, command: Callable[..., None], archive: ArchiveFile, capsys: Any
) -> None:
    make_foreign_endpoint(connection)
    theirs = deploy_foreign(connection, "theirs", "marquee")
    labels = dict(endpoint_of(connection).labels)
    command("deploy", "--adopt")
    split = dict(endpoint_of(connection).traffic_split)
    assert (len(split), split[theirs]) == (2, 95)
    command("deploy")
    command("promote")
    assert dict(endpoint_of(connection).traffic_split) == split
    with pytest.raises(MarqueeError, match="nothing to roll back to"):
        command("rollback")
    command("verify", "--set", f"archive={archive.path}")
    command("deploy", "--traffic", "40")
    assert endpoint_of(connection).traffic_split[theirs] == 60
    command("teardown")
    assert dict(endpoint_of(connection).traffic_split) == {theirs: 100}
    assert [model.id for model in endpoint_of(connection).deployed_models] == [theirs]
    assert dict(endpoint_of(connection).labels) == labels
    assert [model.display_name for model in connection.models.list_models(parent=connection.location)] == [
        "theirs"
    ]


def test_a_foreign_model_on_our_endpoint_is_never_undeployed(
    connection: Connection, command: Callable[..., None], other_archive: ArchiveFile, capsys: Any
) -> None:
    command("deploy")
    (first,) = (model.id for model in endpoint_of(connection).deployed_models)
    theirs = deploy_foreign(connection, "theirs", "marquee", share=100, ours=0)
    command("deploy", "--set", f"archive={other_archive.path}", "--set", "machine=n1-standard-16")
    with pytest.raises(MarqueeError, match="has no canary"):
        command("promote")
    command("rollback")
    assert theirs in {model.id for model in endpoint_of(connection).deployed_models}
    assert endpoint_of(connection).traffic_split[theirs] >= 95
    command("teardown")
    assert dict(endpoint_of(connection).traffic_split) == {theirs: 100}
    assert first not in {model.id for model in endpoint_of(connection).deployed_models}
    assert "stays: on endpoint marquee" in capsys.readouterr().out


def test_a_foreign_version_of_our_model_stays(
    connection: Connection, command: Callable[..., None], capsys: Any
) -> None:
    command("deploy")
    ours = connection.models.get_model(name=connection.model_name("marquee"))
    model = {
        "display_name": "marquee",
        "artifact_uri": ours.artifact_uri,
        "container_spec": {"image_uri": ours.container_spec.image_uri},
    }
    request = {"parent": connection.location, "model": model, "parent_model": ours.name}
    connection.models.upload_model(request=request).result()
    command("teardown")
    told = capsys.readouterr().out
    assert "left model marquee version 2: it was not made by marquee" in told
    versions = connection.models.list_model_versions(name=connection.model_name("marquee"))
    assert [version.version_id for version in versions][-1:] == ["2"]
    bucket = ours.artifact_uri.removeprefix("gs://").partition("/")[0]
    assert len(list(connection.storage.bucket(bucket).list_blobs())) == 1, (
        "a version that stays uses the archive"
    )


def test_a_model_that_is_deployed_elsewhere_stays(
    connection: Connection, command: Callable[..., None], capsys: Any
) -> None:
    command("deploy")
    make_foreign_endpoint(connection, "elsewhere")
    machine = {"machine_type": "n1-standard-8", "accelerator_type": "NVIDIA_TESLA_T4", "accelerator_count": 1}
    deployed = {
        "model": connection.model_name("marquee"),
        "dedicated_resources": {"machine_spec": machine, "min_replica_count": 1, "max_replica_count": 1},
    }
    elsewhere = connection.endpoint_name("elsewhere")
    connection.endpoints.deploy_model(
        endpoint=elsewhere, deployed_model=deployed, traffic_split={"0": 100}
    ).result()
    command("teardown")
    assert "left model marquee version 1: it is deployed on elsewhere" in capsys.readouterr().out
    assert len(connection.endpoints.get_endpoint(name=elsewhere).deployed_models) == 1


def test_a_failed_deploy_beside_a_foreign_model_without_traffic_is_taken_back(
    cloud: RehearsalCloud, connection: Connection, command: Callable[..., None], capsys: Any
) -> None:
    """A foreign model that nobody is asked of does not come into service because ours failed."""
    make_foreign_endpoint(connection)
    theirs = deploy_foreign(connection, "theirs", "marquee")
    off = {"name": connection.endpoint_name("marquee"), "traffic_split": {}}
    connection.endpoints.update_endpoint(endpoint=off, update_mask={"paths": ["traffic_split"]})
    cloud.painter = {"flat": True}
    with pytest.raises(MarqueeError, match=r"taken back: deployed model \d+, model marquee"):
        command("deploy", "--adopt")
    assert [model.id for model in endpoint_of(connection).deployed_models] == [theirs]
    assert dict(endpoint_of(connection).traffic_split) == {}
    assert dict(endpoint_of(connection).labels) == {"team": "search"}
