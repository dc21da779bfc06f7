"""Checks that a deploy does not collide with resources of other people or of another kind."""

from __future__ import annotations

from pipeline.deploy.config import DeployConfig
from pipeline.deploy.inventory import FoundEndpoint, Inventory, Serving
from pipeline.errors import MarqueeError


def check_place(config: DeployConfig, found: Inventory, adopt: bool) -> tuple[str, ...]:
    """Remarks for the plan. Raises MarqueeError when the deploy must not begin."""
    _check_model(config, found)
    if found.stored is not None and found.stored.matches is False:
        raise MarqueeError(
            f"{found.stored.uri} holds other bytes than the archive",
            cure="delete that object and deploy again",
        )
    endpoint = found.endpoint
    if endpoint is None:
        return ()
    if not endpoint.ours and not adopt and not endpoint.our_models:
        raise MarqueeError(
            f"endpoint {config.endpoint} was not made by marquee; "
            f"it serves {serving_list(endpoint.deployed)}",
            cure="choose another name (endpoint in deploy.yaml), or deploy beside those models: "
            "marquee deploy --adopt",
        )
    if endpoint.dedicated != config.dedicated:
        kind = "dedicated" if endpoint.dedicated else "shared"
        raise MarqueeError(
            f"endpoint {config.endpoint} exists and is {kind}, but the configuration says "
            f"dedicated: {config.dedicated}",
            cure="choose another endpoint name, or set dedicated to match the endpoint",
        )
    return _remarks(config, endpoint)


def _check_model(config: DeployConfig, found: Inventory) -> None:
    if found.versions and not found.versions[0].ours:
        raise MarqueeError(
            f"model {config.model} exists in {config.project} and was not made by marquee",
            cure="choose another name: model in deploy.yaml",
        )


def serving_list(models: tuple[Serving, ...]) -> str:
    """Deployed models with their shares, in words."""
    if not models:
        return "no model"
    return ", ".join(f"deployed model {model}: {model.share} %" for model in models)


def _remarks(config: DeployConfig, endpoint: FoundEndpoint) -> tuple[str, ...]:
    theirs = [model for model in endpoint.foreign if model.share]
    if not theirs:
        return ()
    told = f"not marquee's: never undeployed, their shares are at most scaled: {serving_list(tuple(theirs))}"
    if config.traffic < 100:
        return (told,)
    return (
        told,
        "traffic 100 means all of marquee's share there; --traffic N sets a share of all traffic",
    )
