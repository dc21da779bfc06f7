"""The model registry over both transports: versions, aliases, lists, refusals."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from google.api_core import exceptions
from local_vertex import IMAGE, LOCATION, NUMBERED, Clients, LocalVertex


def test_upload_makes_a_model_that_can_be_read_by_name_version_and_alias(clients: Clients) -> None:
    made = clients.upload(model_id="shapes", labels={"owner": "marquee"}, version_aliases=["blue"])
    assert (made.model, made.model_version_id) == (f"{NUMBERED}/models/shapes", "1")
    for suffix in ("", "@1", "@default", "@blue"):
        model = clients.models.get_model(name=f"{LOCATION}/models/shapes{suffix}")
        assert (model.name, model.version_id) == (made.model, "1")
    assert sorted(model.version_aliases) == ["blue", "default"]
    assert dict(model.labels) == {"owner": "marquee"}
    assert model.container_spec.image_uri == IMAGE
    assert model.create_time == model.version_create_time
    assert model.etag


def test_an_assigned_id_is_used_when_none_is_asked_for(clients: Clients) -> None:
    first, second = clients.upload(), clients.upload()
    assert first.model != second.model
    assert first.model.rpartition("/")[2].isdigit()


def test_an_explicit_id_that_is_taken_is_refused(clients: Clients) -> None:
    clients.upload(model_id="shapes")
    with pytest.raises(exceptions.Conflict, match="already exists"):
        clients.upload(model_id="shapes")


def test_of_many_uploads_at_once_to_one_id_one_wins(clients: Clients) -> None:
    def upload(model_id: str) -> str:
        together.wait()
        try:
            return str(clients.upload(model_id=model_id).model_version_id)
        except exceptions.Conflict:
            return "taken"

    together = threading.Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        for model_id in [f"shapes-{number}" for number in range(6)]:
            answers = sorted(pool.map(upload, [model_id] * 8))
            assert answers == ["1"] + ["taken"] * 7


def test_a_second_version_takes_the_aliases_it_names(clients: Clients) -> None:
    clients.upload(model_id="shapes", version_aliases=["canary"])
    second = clients.upload(parent_model=f"{LOCATION}/models/shapes", version_aliases=["canary"])
    assert second.model_version_id == "2"
    aliases = {
        version.version_id: sorted(version.version_aliases)
        for version in clients.models.list_model_versions(name=f"{LOCATION}/models/shapes")
    }
    assert aliases == {"1": ["default"], "2": ["canary"]}
    assert clients.models.get_model(name=f"{LOCATION}/models/shapes").version_id == "1"


def test_versions_are_listed_with_their_number_in_the_name(clients: Clients) -> None:
    clients.upload(model_id="shapes")
    clients.upload(parent_model=f"{LOCATION}/models/shapes")
    versions = clients.models.list_model_versions(name=f"{LOCATION}/models/shapes")
    assert [version.name for version in versions] == [f"{NUMBERED}/models/shapes@{n}" for n in (1, 2)]


def test_a_version_of_a_model_that_is_not_there_is_refused(clients: Clients) -> None:
    with pytest.raises(exceptions.NotFound):
        clients.upload(parent_model=f"{LOCATION}/models/absent")


def test_aliases_are_merged_and_the_default_stays_somewhere(clients: Clients) -> None:
    clients.upload(model_id="shapes", version_aliases=["old"])
    clients.upload(parent_model=f"{LOCATION}/models/shapes")
    name = f"{LOCATION}/models/shapes"
    merged = clients.models.merge_version_aliases(name=f"{name}@2", version_aliases=["default", "new"])
    assert sorted(merged.version_aliases) == ["default", "new"]
    assert list(clients.models.get_model(name=f"{name}@1").version_aliases) == ["old"]
    clients.models.merge_version_aliases(name=f"{name}@1", version_aliases=["-old"])
    assert list(clients.models.get_model(name=f"{name}@1").version_aliases) == []
    with pytest.raises(exceptions.BadRequest, match="default alias"):
        clients.models.merge_version_aliases(name=f"{name}@2", version_aliases=["-default"])


def test_update_changes_what_its_mask_names_and_nothing_else(clients: Clients) -> None:
    made = clients.upload(model_id="shapes", description="before")
    changed = {"name": made.model, "description": "after", "labels": {"a": "b"}}
    model = clients.models.update_model(model=changed, update_mask={"paths": ["labels"]})
    assert (dict(model.labels), model.description) == ({"a": "b"}, "before")
    with pytest.raises(exceptions.BadRequest, match="Field mask"):
        clients.models.update_model(model=changed, update_mask={"paths": ["artifact_uri"]})


def test_lists_are_filtered_and_paged(clients: Clients) -> None:
    for number in range(5):
        clients.upload(model_id=f"m{number}", labels={"parity": "even" if number % 2 == 0 else "odd"})
    even = clients.models.list_models({"parent": LOCATION, "filter": "labels.parity=even AND NOT model=m2"})
    assert [model.name.rpartition("/")[2] for model in even] == ["m0", "m4"]
    pages = list(clients.models.list_models({"parent": LOCATION, "page_size": 2}).pages)
    assert [len(page.models) for page in pages] == [2, 2, 1]
    ordered = clients.models.list_models({"parent": LOCATION, "order_by": "name desc"})
    assert [model.name[-1] for model in ordered] == list("43210")
    with pytest.raises(exceptions.BadRequest, match="Invalid filter"):
        list(clients.models.list_models({"parent": LOCATION, "filter": "labels.parity =="}))


def test_locations_are_apart(clients: Clients) -> None:
    clients.upload(model_id="shapes")
    elsewhere = "projects/marquee-local/locations/europe-west1"
    assert list(clients.models.list_models(parent=elsewhere)) == []
    with pytest.raises(exceptions.NotFound):
        clients.models.get_model(name=f"{elsewhere}/models/shapes")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"image": IMAGE.replace("2-4", "1-12")}, "no longer available"),
        ({"image": "docker.io/pytorch/torchserve:latest"}, "Unsupported container image"),
        ({"folder": "absent"}, "does not exist"),
        ({"folder": "two"}, "expected to contain exactly one of: .model.mar."),
        ({"artifact_uri": "shapes/model"}, "Invalid artifact_uri"),
        ({"model_id": "9shapes"}, "Invalid model_id"),
        ({"labels": {"Owner": "x"}}, "Invalid label"),
        ({"version_aliases": ["x"]}, "Invalid version alias"),
    ],
)
def test_uploads_that_google_refuses(
    cloud: LocalVertex, clients: Clients, fields: dict[str, object], text: str
) -> None:
    cloud.put("two/shapes.mar", b"")
    with pytest.raises((exceptions.BadRequest, exceptions.NotFound), match=text):
        clients.upload(**fields)
    assert list(clients.models.list_models(parent=LOCATION)) == []


def test_deleting_a_model_takes_all_its_versions(clients: Clients) -> None:
    made = clients.upload(model_id="shapes")
    clients.upload(parent_model=made.model)
    clients.models.delete_model(name=made.model).result(timeout=60)
    with pytest.raises(exceptions.NotFound):
        clients.models.get_model(name=f"{made.model}@2")
    with pytest.raises(exceptions.NotFound):
        clients.models.delete_model(name=made.model)


def test_versions_are_deleted_one_by_one_but_not_the_default_nor_the_last(clients: Clients) -> None:
    made = clients.upload(model_id="shapes")
    with pytest.raises(exceptions.BadRequest, match="only version"):
        clients.models.delete_model_version(name=f"{made.model}@1")
    clients.upload(parent_model=made.model)
    with pytest.raises(exceptions.BadRequest, match="default version"):
        clients.models.delete_model_version(name=f"{made.model}@1")
    clients.models.delete_model_version(name=f"{made.model}@2").result(timeout=60)
    assert clients.upload(parent_model=made.model).model_version_id == "3"
