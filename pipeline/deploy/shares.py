"""The arithmetic of traffic splits: percent by deployed model id, whole numbers that add up to 100."""

from __future__ import annotations

from collections.abc import Collection, Mapping


def scaled(split: Mapping[str, int], total: int) -> dict[str, int]:
    """``split`` scaled to the sum ``total`` in its old proportions, rounded by largest remainders.

    A model that had traffic keeps at least 1 % as long as ``total`` allows it.
    """
    serving = {key: share for key, share in split.items() if share > 0}
    if not serving or total <= 0:
        return {}
    whole = sum(serving.values())
    exact = {key: share * total / whole for key, share in serving.items()}
    least = 1 if total >= len(serving) else 0
    shares = {key: max(least, int(share)) for key, share in exact.items()}
    by_remainder = sorted(serving, key=lambda key: exact[key] - int(exact[key]), reverse=True)
    for key in by_remainder:
        if sum(shares.values()) < total:
            shares[key] += 1
    while sum(shares.values()) > total:
        shares[max(shares, key=lambda key: shares[key])] -= 1
    return {key: share for key, share in shares.items() if share}


def with_share(split: Mapping[str, int], model_id: str, percent: int) -> dict[str, int]:
    """``split`` with ``percent`` for one model and the rest in its old proportions; a lone model gets 100."""
    others = {key: share for key, share in split.items() if key != model_id and share > 0}
    if not others:
        return {model_id: 100}
    return {model_id: percent, **scaled(others, 100 - percent)}


def among_ours(split: Mapping[str, int], chosen: str, foreign: Collection[str], least: int) -> dict[str, int]:
    """``chosen`` gets all traffic that ``foreign`` models do not have, and at least ``least`` percent.

    The shares of ``foreign`` models change only where they leave less than ``least``; then they are scaled.
    """
    theirs = {key: share for key, share in split.items() if key in foreign and share > 0}
    return with_share(theirs, chosen, max(least, 100 - sum(theirs.values())))


def without(
    split: Mapping[str, int], leaving: Collection[str], heirs: Collection[str] = ()
) -> dict[str, int]:
    """The traffic without the models ``leaving``: the others share it in proportion.

    If ``leaving`` had all of it, the first of ``heirs`` gets it; without heirs the split is empty.
    """
    rest = {key: share for key, share in split.items() if key not in leaving}
    if any(rest.values()):
        return scaled(rest, 100)
    return {next(iter(heirs)): 100} if heirs else {}
