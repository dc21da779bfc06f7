"""Prints plans, the result of a deploy, and what is deployed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.deploy.flow import Deployed
    from pipeline.deploy.plan import Action, Plan
    from pipeline.deploy.status import Status


def print_whole(plan: Plan, rehearsal: str) -> None:
    """Print a deploy's plan, its prices, and the packages that the replicas have."""
    print_plan(plan)
    print_prices(plan)
    print(f"rehearsal: {rehearsal}", flush=True)


def print_plan(plan: Plan) -> None:
    """Print the actions in order, the outcome for each deployed model, and what stays as it is."""
    for action in plan.actions:
        print(f"  {action.verb:<8} {_line(action)}")
    if not plan.changes:
        print("nothing to do")
    if plan.fates:
        print("deployed models:")
    for fate in plan.fates:
        print(f"  {fate}")
    for thing in plan.left:
        print(f"stays: {thing}")
    for note in plan.notes:
        print(f"note: {note}")
    if plan.changes and plan.on_failure:
        told = ", ".join(f"{action.verb} {action.thing}" for action in plan.on_failure)
        print(f"if the new model fails: {told}")
    sys.stdout.flush()  # the user reads it before the work begins, also through a pipe


def _line(action: Action) -> str:
    detail = f": {action.detail}" if action.detail else ""
    dollars = f" ({_dollars(action.dollars_per_hour)} an hour)" if action.dollars_per_hour else ""
    gone = f"; takes away {action.takes_away}" if action.takes_away else ""
    return f"{action.thing}{detail}{dollars}{gone}"


def _dollars(amount: float) -> str:
    return f"{'-' if amount < 0 else '+'}${abs(amount):.2f}"


def print_prices(plan: Plan) -> None:
    """Print the price per hour of the new deployed model, and of the endpoint now."""
    if plan.price is None:
        print("price: not in the table for this machine; look it up before you deploy")
    else:
        print(
            f"price: ${plan.min_dollars:.2f} to ${plan.max_dollars:.2f} an hour while it is deployed"
            f" (checked {plan.price.checked_on}{'' if plan.price.verified else ', not verified'}:"
            f" {plan.price.source})"
        )
    if plan.running_dollars:
        print(f"running now on this endpoint: ${plan.running_dollars:.2f} an hour")


def print_deployed(deployed: Deployed) -> None:
    proof = deployed.proof
    print(f"archive   {deployed.uploaded.artifact_uri}  {deployed.uploaded.sent_bytes:,} bytes sent")
    print(f"model     {deployed.model} version {deployed.version}")
    print(f"endpoint  {deployed.endpoint}  deployed model {deployed.deployed_model_id}, {deployed.role}")
    print(f"picture   {proof.picture.width}x{proof.picture.height}, weights {proof.weights_digest[:12]}")
    print("traffic   " + ", ".join(f"{key}: {share} %" for key, share in deployed.traffic.items()))
    if deployed.kept:
        print(f"kept at 0 % for `marquee rollback`, and still charged: {', '.join(deployed.kept)}")
        print("  `marquee promote --discard` removes it")


def print_status(status: Status) -> None:
    """The versions of the model, and what the endpoint serves, with its traffic and its price."""
    if not status.versions:
        print(f"model {status.model}: not registered")
    for version in status.versions:
        aliases = ", ".join(version.aliases)
        weights = f"weights {version.weights_digest[:12]}" if version.ours else "not marquee's"
        print(f"model {status.model}@{version.version}  {weights}  {aliases}")
    if status.endpoint is None:
        print("endpoint: none")
        return
    print(f"endpoint {status.endpoint} ({status.endpoint_kind})")
    for model in status.deployed:
        price = "price unknown" if model.dollars_per_hour is None else f"${model.dollars_per_hour:.2f}/h each"
        role = model.role if model.ours else "not marquee's"
        proved = "" if model.proved or not model.ours else ", not proved"
        print(
            f"  {model.traffic:>3} %  deployed model {model.id}  {role}{proved}  {model.model} version "
            f"{model.version}  {model.machine} + {model.accelerator}  {model.min_replicas} to "
            f"{model.max_replicas} replicas  {price}"
        )
    print(f"while deployed: ${status.dollars_per_hour:.2f} an hour")
