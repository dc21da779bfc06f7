"""Endpoints whose labels, traffic or deployed models somebody changed by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from rehearsal_cloud import RehearsalCloud

from pipeline.deploy.archive_file import ArchiveFile
from pipeline.deploy.connection import Connection
from pipeline.deploy.flow import deploy, plan
from pipeline.deploy.roles import CANARY_LABEL, IN_SERVICE_LABEL, PREDECESSOR_LABEL, Roles, Share, read_roles
from pipeline.deploy.smoke import Unknown
from pipeline.deploy.survey import survey
from pipeline.deploy.traffic import promote, rollback
from pipeline.errors import MarqueeError
from pipeline.progress import Silent

QUIET = Silent()


@pytest.mark.parametrize(
    ("labels", "shares", "roles"),
    [
        ({IN_SERVICE_LABEL: "gone", CANARY_LABEL: "b"}, {"b": 100}, Roles("b")),
        ({IN_SERVICE_LABEL: "gone", PREDECESSOR_LABEL: "a"}, {"a": 100}, Roles("a")),
        ({IN_SERVICE_LABEL: "gone", CANARY_LABEL: "b"}, {"a": 70, "b": 30}, Roles("a", "b")),
        ({IN_SERVICE_LABEL: "a", CANARY_LABEL: "a", PREDECESSOR_LABEL: "a"}, {"a": 100}, Roles("a")),
        (
            {IN_SERVICE_LABEL: "a", PREDECESSOR_LABEL: "b", CANARY_LABEL: "b"},
            {"a": 90, "b": 10},
            Roles("a", "b"),
        ),
        ({IN_SERVICE_LABEL: "foreign", CANARY_LABEL: "foreign"}, {"a": 0}, Roles()),
    ],
)
def test_roles_of_labels_that_name_what_is_gone_or_one_model_twice(
    labels: dict[str, str], shares: dict[str, int], roles: Roles
) -> None:
    ours = [Share(id_, share) for id_, share in shares.items()]
    assert read_roles(labels, ours, others_have_traffic=False) == roles


def test_a_canary_that_serves_alone_is_not_replaced_by_another_canary(
    connection: Connection,
    configure: Callable[..., Any],
    archive: ArchiveFile,
    other_archive: ArchiveFile,
    third_archive: ArchiveFile,
) -> None:
    """Somebody gave the canary all the traffic in the console and undeployed the model in service."""
    first = deploy(connection, configure(), archive, QUIET).deployed_model_id
    canary = deploy(connection, configure(traffic=10), other_archive, QUIET).deployed_model_id
    name = connection.endpoint_name("marquee")
    moved = {"name": name, "traffic_split": {canary: 100}}
    connection.endpoints.update_endpoint(endpoint=moved, update_mask={"paths": ["traffic_split"]})
    connection.endpoints.undeploy_model(endpoint=name, deployed_model_id=first).result()
    made = plan(connection, configure(traffic=10), third_archive)
    assert [(fate.after, fate.role_after) for fate in made.fates] == [(90, "in service"), (10, "canary")]


def test_a_predecessor_that_is_tried_again_is_still_the_predecessor_after_a_rollback(
    cloud: RehearsalCloud,
    connection: Connection,
    configure: Callable[..., Any],
    archive: ArchiveFile,
    other_archive: ArchiveFile,
) -> None:
    old = deploy(connection, configure(), archive, QUIET).deployed_model_id
    new = deploy(connection, configure(), other_archive, QUIET).deployed_model_id
    brief = configure(smoke={"seconds": 1, "percent": 50})
    for painter in cloud.painters:
        painter.refusal = (429, {"code": 429, "type": "Busy", "message": "later"})
    with pytest.raises(Unknown):  # as if the run had been killed: the predecessor keeps its share
        deploy(connection, brief, archive, QUIET)
    with pytest.raises(MarqueeError, match=f"{old}.* is being tried again"):
        promote(connection, configure(), QUIET)
    rollback(connection, configure(), QUIET)
    endpoint = survey(connection, configure()).endpoint
    assert endpoint is not None
    assert (endpoint.split, endpoint.roles) == ({new: 100}, Roles(new, None, old))
    rollback(connection, configure(), QUIET)
    endpoint = survey(connection, configure()).endpoint
    assert endpoint is not None
    assert (endpoint.split, endpoint.roles) == ({old: 100}, Roles(old))
