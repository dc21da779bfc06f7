"""Promote a canary, or roll back. Each command surveys once, makes a plan and carries it out."""

from __future__ import annotations

from pipeline.deploy.carry_out import Execution
from pipeline.deploy.config import DeployConfig
from pipeline.deploy.connection import Connection
from pipeline.deploy.plan import Plan
from pipeline.deploy.survey import survey_settled
from pipeline.deploy.switching import plan_promote, plan_rollback
from pipeline.progress import Progress


def promotion(
    connection: Connection,
    config: DeployConfig,
    progress: Progress,
    unproved: bool = False,
    discard: bool = False,
) -> Plan:
    """The plan of a promote; see ``switching.plan_promote``."""
    return plan_promote(survey_settled(connection, config, progress), config.endpoint, unproved, discard)


def withdrawal(connection: Connection, config: DeployConfig, progress: Progress) -> Plan:
    """The plan of a rollback; see ``switching.plan_rollback``."""
    return plan_rollback(survey_settled(connection, config, progress), config.endpoint)


def carry_out_switch(connection: Connection, config: DeployConfig, made: Plan, progress: Progress) -> None:
    """Carry out the plan of a promote or a rollback."""
    run = Execution(connection, config, progress, made.split_before)
    for action in made.actions:
        run.carry_out(action)


def promote(
    connection: Connection,
    config: DeployConfig,
    progress: Progress,
    unproved: bool = False,
    discard: bool = False,
) -> Plan:
    """Give the canary all of marquee's traffic. Returns the plan that was carried out."""
    made = promotion(connection, config, progress, unproved, discard)
    carry_out_switch(connection, config, made, progress)
    return made


def rollback(connection: Connection, config: DeployConfig, progress: Progress) -> Plan:
    """Undeploy the canary, or go back to the predecessor. Returns the plan that was carried out."""
    made = withdrawal(connection, config, progress)
    carry_out_switch(connection, config, made, progress)
    return made
