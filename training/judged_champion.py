"""A verdict holds for the champion that it was reached against, and for no other."""

from training.adapters.registry import ModelVersion
from training.contract.messages import JudgedAgainst


def champion_problem(model: str, judged: JudgedAgainst, champion: ModelVersion | None) -> str | None:
    """Why a verdict against `judged` does not hold, now that `champion` serves; None when it does.

    In a registry that was restored from an older copy, another artifact may have the number of the champion.
    """
    serving, now = (champion.version, champion.digest) if champion else (None, None)
    if serving == judged.version and judged.digest in (None, now):
        return None
    named = ["no champion" if version is None else f"version {version}" for version in (judged.version, serving)]
    if serving == judged.version:
        named = [f"{named[0]} with digest {judged.digest}", f"another one, with digest {now},"]
    return f"The challenger was judged against {named[0]} of {model}, {named[1]} serves now"


def another_run(model: str) -> str:
    """What to do then."""
    return f"Start another run of {model}_train: a run compares with the champion that it began with."
