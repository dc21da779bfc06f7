"""Every state of an endpoint and every command, on values alone: who serves afterwards, and who leaves.

A state is written as letters with shares: S in service, C canary, P predecessor, E a model of ours without a
role, F somebody else's; a small letter is a model that was never proved.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from pipeline.deploy.archive_file import ArchiveFile
from pipeline.deploy.config import DeployConfig, load_config
from pipeline.deploy.inventory import (
    FoundBucket,
    FoundEndpoint,
    Inventory,
    Serving,
    StoredArchive,
    StoredObject,
    Version,
)
from pipeline.deploy.plan import Plan
from pipeline.deploy.planning import plan_deploy, wanted_hardware, wanted_scaling
from pipeline.deploy.roles import Roles, Share, read_roles
from pipeline.deploy.switching import plan_promote, plan_rollback
from pipeline.deploy.teardown_plan import plan_teardown
from pipeline.errors import MarqueeError

CONFIG = load_config(None, {}, "p100", date(2026, 11, 21))
WHEN = datetime(2026, 11, 24, tzinfo=UTC)
STORED = StoredArchive("gs://b/marquee/marquee/a/model.mar", "b", True, True)


def archive_of(letter: str) -> ArchiveFile:
    return ArchiveFile(Path("model.mar"), letter * 64, letter * 64, {}, {})


def config_of(**values: object) -> DeployConfig:
    return CONFIG.model_copy(update=values)


def state(
    text: str, last_command: str = "deploy", endpoint_ours: bool = True, labelled: bool = True
) -> Inventory:
    """The inventory of a state. Each letter is a version of its own, registered from an archive of it."""
    letters = {part[0]: int(part[1:]) for part in text.split()}
    deployed = tuple(_serving(letter, share) for letter, share in letters.items())
    roles = Roles(*(next((one for one in letters if one.upper() == role), None) for role in "SCP"))
    if not labelled:
        shares = [Share(model.id, model.share) for model in deployed if model.ours]
        roles = read_roles({}, shares, any(model.share for model in deployed if not model.ours))
    endpoint = FoundEndpoint("marquee", "e", endpoint_ours, True, deployed, roles, labelled, last_command)
    versions = tuple(_version(letter) for letter in letters if letter != "F")
    return Inventory(versions, endpoint if text or not endpoint_ours else None, STORED)


def _serving(letter: str, share: int) -> Serving:
    return Serving(
        id=letter,
        model_id="theirs" if letter == "F" else "marquee",
        version_id=letter,
        ours=letter != "F",
        share=share,
        hardware=wanted_hardware(CONFIG),
        scaling=wanted_scaling(CONFIG),
        dollars=1.0,
        proved=letter.isupper(),
        created=WHEN,
        is_default=letter in "SE",
    )


def _version(letter: str) -> Version:
    digest = (letter * 64)[:40]
    aliases = ("default",) if letter == "S" else ()
    return Version(
        "marquee", letter, True, digest, digest, CONFIG.image_uri, "gs://b/x", aliases, WHEN, ("marquee",)
    )


def told(plan: Plan) -> str:
    """Each deployed model afterwards, in the notation of the states; N is a new one, - one that left."""
    letters = {"in service": "S", "canary": "C", "predecessor": "P", "": "E"}
    words = []
    for fate in plan.fates:
        name = fate.id if len(fate.id) == 1 else "N"
        role = "F" if name == "F" else letters[fate.role_after]
        words.append(f"{name}-" if fate.after is None else f"{name}:{role}{fate.after}")
    return " ".join(words)


DEPLOYS = [
    ("", "n", 100, "N:S100"),
    ("", "n", 10, "N:S100"),
    ("S100", "S", 100, "S:S100"),
    ("S100", "S", 10, "S:S100"),
    ("S100", "n", 100, "S:P0 N:S100"),
    ("S100", "n", 10, "S:S90 N:C10"),
    ("S100 P0", "n", 100, "S:P0 P- N:S100"),
    ("S100 P0", "n", 10, "S:S90 P:P0 N:C10"),
    ("S100 P0", "P", 100, "S:P0 P:S100"),
    ("S100 P0", "P", 10, "S:S90 P:C10"),
    ("S90 C10", "C", 100, "S:P0 C:S100"),
    ("S90 C10", "C", 30, "S:S70 C:C30"),
    ("S90 C10", "S", 10, "S:S90 C:C10"),
    ("S90 C10", "S", 100, "S:S90 C:C10"),
    ("S90 C10 P0", "n", 100, "S:P0 C- P- N:S100"),
    ("S90 C10 P0", "n", 20, "S:S80 C- P:P0 N:C20"),
    ("S95 c5", "c", 100, "S:P0 c:S100"),
    ("S95 c5", "c", 20, "S:S80 c:C20"),
    ("S100 E0", "n", 100, "S:P0 E- N:S100"),
    ("S90 C10 E0", "n", 20, "S:S80 C- E- N:C20"),
    ("S90 C10 E0", "C", 10, "S:S90 C:C10 E-"),
    ("S90 C10 E0", "S", 10, "S:S90 C:C10 E-"),
    ("F95 S5 E0", "S", 10, "F:F90 S:S10 E-"),
    ("c100 P0", "n", 100, "c- P:P0 N:S100"),
    ("S70 F30", "n", 100, "S:P0 F:F30 N:S70"),
    ("S70 F30", "n", 10, "S:S63 F:F27 N:C10"),
    ("S100 F0", "n", 100, "S:P0 F:F0 N:S100"),
    ("F100", "n", 100, "F:F95 N:C5"),
    ("F100", "n", 10, "F:F90 N:C10"),
    ("F95 C5", "C", 100, "F:F95 C:C5"),
    ("F99 S1", "n", 100, "F:F99 S:P0 N:S1"),
    ("F99 S1", "S", 50, "F:F50 S:S50"),
]


@pytest.mark.parametrize(("before", "letter", "traffic", "after"), DEPLOYS)
def test_deploy(before: str, letter: str, traffic: int, after: str) -> None:
    found = state(before)
    assert told(plan_deploy(config_of(traffic=traffic), archive_of(letter), found, adopt=False)) == after


SWITCHES = [
    ("S100", "no canary", "no canary", "nothing to roll back to"),
    ("S100 P0", "no canary", "S:S100 P-", "S- P:S100"),
    ("S90 C10", "S:P0 C:S100", "S- C:S100", "S:S100 C-"),
    ("S90 C10 P0", "S:P0 C:S100 P-", "S- C:S100 P-", "S:S100 C- P:P0"),
    ("S95 c5", "never proved", "never proved", "S:S100 c-"),
    ("S100 E0", "S:S100 E-", "S:S100 E-", "nothing to roll back to"),
    ("S100 P0 E0", "S:S100 P:P0 E-", "S:S100 P- E-", "S- P:S100 E-"),
    ("S60 C10 F30", "S:P0 C:S70 F:F30", "S- C:S70 F:F30", "S:S70 C- F:F30"),
    ("S70 P0 F30", "no canary", "S:S70 P- F:F30", "S- P:S70 F:F30"),
    ("C5 F95", "C:S5 F:F95", "C:S5 F:F95", "C- F:F100"),
    ("S5 F95", "no canary", "no canary", "nothing to roll back to"),
    ("c100", "never proved", "never proved", "nothing to roll back to"),
    ("F100", "no deployed model of marquee's", "no deployed model", "no deployed model of marquee's"),
]


def _said(plan_it: object) -> str:
    try:
        return told(plan_it())  # type: ignore[operator]
    except MarqueeError as error:
        return str(error)


@pytest.mark.parametrize(("before", "promoted", "discarded", "rolled_back"), SWITCHES)
def test_promote_and_rollback(before: str, promoted: str, discarded: str, rolled_back: str) -> None:
    found = state(before)
    assert promoted in _said(lambda: plan_promote(found, "marquee", unproved=False, discard=False))
    assert discarded in _said(lambda: plan_promote(found, "marquee", unproved=False, discard=True))
    assert rolled_back in _said(lambda: plan_rollback(found, "marquee"))


def test_what_was_never_proved_is_promoted_on_request() -> None:
    assert told(plan_promote(state("S95 c5"), "marquee", unproved=True, discard=False)) == "S:P0 c:S100"


def test_an_interrupted_rollback_is_finished_and_goes_no_further() -> None:
    found = state("S100 P0 E0", last_command="rollback")
    assert told(plan_rollback(found, "marquee")) == "S:S100 P:P0 E-"


@pytest.mark.parametrize(
    ("before", "deployed", "promoted", "rolled_back"),
    [
        ("E100", "E:P0 N:S100", "no canary", "nothing to roll back to"),
        ("D0 E100", "D- E:P0 N:S100", "no canary", "D:S100 E-"),
        ("D90 E10", "D:P0 E- N:S100", "D:P0 E:S100", "D:S100 E-"),
        ("A0 D90 E10", "A- D:P0 E- N:S100", "A- D:P0 E:S100", "A:P0 D:S100 E-"),
        ("F99 E1", "F:F95 E- N:C5", "F:F99 E:S1", "F:F100 E-"),
    ],
)
def test_roles_of_an_older_marquee_are_derived_from_traffic(
    before: str, deployed: str, promoted: str, rolled_back: str
) -> None:
    found = state(before, labelled=False)
    assert told(plan_deploy(CONFIG, archive_of("n"), found, adopt=False)) == deployed
    assert promoted in _said(lambda: plan_promote(found, "marquee", unproved=False, discard=False))
    assert rolled_back in _said(lambda: plan_rollback(found, "marquee"))


@pytest.mark.parametrize(
    ("before", "endpoint_ours", "after", "endpoint_goes"),
    [
        ("S100", True, "S-", True),
        ("S90 C10 P0", True, "S- C- P-", True),
        ("S60 C10 F30", True, "S- C- F:F100", False),
        ("S100 F0", True, "S- F:F0", False),
        ("F95 C5", False, "F:F100 C-", False),
        ("F100", False, "F:F100", False),
    ],
)
def test_teardown(before: str, endpoint_ours: bool, after: str, endpoint_goes: bool) -> None:
    archives = tuple(
        StoredObject(f"gs://b/marquee/marquee/{name}/model.mar", 1, name == "a") for name in "ax"
    )
    found = state(before, endpoint_ours=endpoint_ours)
    plan = plan_teardown(CONFIG, found, FoundBucket("b", True, archives))
    assert told(plan).replace(":E", ":F") == after
    assert ("endpoint marquee" in [action.thing for action in plan.actions]) is endpoint_goes
    assert [a.thing for a in plan.actions if a.thing.startswith("gs:")] == [
        "gs://b/marquee/marquee/a/model.mar"
    ]
    assert any("was not uploaded by marquee" in line for line in plan.left)
    assert any("(theirs version F, not marquee's)" in line for line in plan.left) is ("F" in before)


def test_shares_always_add_up_and_nobody_loses_the_last_percent() -> None:
    for percent in (1, 3, 50, 98):
        found = state(f"S{99 - percent} F{percent} E1")
        plan = plan_deploy(config_of(traffic=10), archive_of("n"), found, adopt=False)
        shares = {fate.id: fate.after or 0 for fate in plan.fates}
        assert sum(shares.values()) == 100
        assert shares["F"] >= 1
