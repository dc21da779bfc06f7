"""The body of a predict request, its randomness made explicit before it leaves."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

Instance = Mapping[str, Any]


def request_body(instances: Sequence[Instance | str], parameters: Instance | None = None) -> dict[str, Any]:
    """``{"instances", "parameters"}`` with a seed in every instance that has none.

    With the seed inside, sending the request again draws the same pictures: a retry is safe.
    """
    parameters = dict(parameters or {})
    whole = [{"prompt": instance} if isinstance(instance, str) else dict(instance) for instance in instances]
    if parameters.get("seed") is None:
        whole = [{**instance, "seed": _seed_of(instance)} for instance in whole]
    return {"instances": whole, "parameters": parameters}


def sent_seeds(body: Mapping[str, Any]) -> list[int | None]:
    """The seed of each instance of a body; None where it is nothing a server could accept either."""
    common = body["parameters"].get("seed")
    return [_as_integer(instance.get("seed", common)) for instance in body["instances"]]


def _seed_of(instance: Instance) -> Any:
    seed = instance.get("seed")
    return secrets.randbelow(2**32) if seed is None else seed


def _as_integer(seed: Any) -> int | None:
    try:
        return int(seed)
    except (TypeError, ValueError):
        return None
