"""Removes what marquee made and nothing else, then checks that it is gone."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.deploy.carry_out import Execution
from pipeline.deploy.config import DeployConfig
from pipeline.deploy.connection import Connection
from pipeline.deploy.plan import Plan
from pipeline.deploy.survey import survey, survey_bucket, survey_settled
from pipeline.deploy.teardown_plan import plan_teardown
from pipeline.errors import MarqueeError
from pipeline.progress import Progress


@dataclass(frozen=True)
class TeardownResult:
    """What was removed, and what stays because it is not marquee's or is in use."""

    removed: tuple[str, ...]
    left: tuple[str, ...]


def removal(connection: Connection, config: DeployConfig, progress: Progress) -> Plan:
    """The plan of a teardown; nothing is changed."""
    found = survey_settled(connection, config, progress)
    return plan_teardown(config, found, survey_bucket(connection, config))


def teardown(connection: Connection, config: DeployConfig, progress: Progress) -> TeardownResult:
    """Plan and carry out; see ``carry_out_teardown``."""
    return carry_out_teardown(connection, config, removal(connection, config, progress), progress)


def carry_out_teardown(
    connection: Connection, config: DeployConfig, made: Plan, progress: Progress
) -> TeardownResult:
    """Carry out the plan. Raises MarqueeError if something of marquee's still exists afterwards."""
    run = Execution(connection, config, progress, made.split_before)
    for action in made.actions:
        run.carry_out(action)
    remaining = leftovers(connection, config)
    if remaining:
        raise MarqueeError(f"still there after the teardown: {', '.join(remaining)}", cure="run it again")
    removed = tuple(action.thing for action in run.done if action.verb != "traffic")
    return TeardownResult(removed, made.left)


def leftovers(connection: Connection, config: DeployConfig) -> list[str]:
    """What a teardown would still remove, from a new survey; empty after a complete teardown."""
    made = plan_teardown(config, survey(connection, config), survey_bucket(connection, config))
    return [action.thing for action in made.actions]
