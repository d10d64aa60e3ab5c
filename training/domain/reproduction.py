"""Compares a version with the model that the same recipe gives now."""

from collections.abc import Mapping

from training.contract.messages.reproduction import Made
from training.contract.recipe import Recipe

#: By how much a metric of a model fitted on a GPU may differ, relative to its value. Sums of floats on a GPU have no
#: fixed order, so the weights differ in their last bits (docs.pytorch.org, Reproducibility).
GPU_TOLERANCE = 0.01
CPU = "cpu"


def tolerance(devices: set[str]) -> float:
    """By how much metrics may differ, relative to their values, when the fits ran on these devices."""
    return 0.0 if devices == {CPU} else GPU_TOLERANCE


def differences(before: Made, now: Made, allowed: float) -> list[str]:
    """A sentence for everything that is not the same. With `allowed` above 0 the bytes of the model may differ."""
    found = []
    if before.dataset_id != now.dataset_id:
        found.append(f"The dataset was {before.dataset_id} and is {now.dataset_id}")
    if not allowed and before.digest != now.digest:
        found.append(f"The SHA-256 of model.onnx was {before.digest} and is {now.digest}")
    for name in sorted(before.metrics.keys() | now.metrics.keys()):
        was, is_ = before.metrics.get(name), now.metrics.get(name)
        if was is None or is_ is None:
            found.append(f"{name} on the holdout is not known of both")
        elif not abs(was - is_) <= allowed * abs(was):
            found.append(f"{name} on the holdout was {was!r} and is {is_!r}")
    return found


def causes(before: Recipe, now: Recipe) -> list[str]:
    """A sentence for everything that entered the version and is another now, most likely cause first."""
    found = []
    for table in sorted(before.tables.keys() | now.tables.keys()):
        if before.tables.get(table) != now.tables.get(table):
            found.append(
                f"Table {table} is not the one that the version was made of: it was deleted and created again, or the "
                "lake was restored from a copy of another"
            )
    if before.definitions != now.definitions:
        found.append(f"The feature definitions were {before.definitions} and are {now.definitions}")
    if before.code != now.code:
        found.append(f"The training code was {before.code[:16]} and is {now.code[:16]}")
    found += _changed("library", before.libraries, now.libraries)
    # Earlier recipes say less about the machine.
    found += _changed("machine's", before.machine, {name: now.machine.get(name, "") for name in before.machine})
    for name, was, is_ in (("commit", before.git_sha, now.git_sha), ("image", before.image, now.image)):
        if was != is_:
            found.append(f"The {name} was {was or 'not known'} and is {is_ or 'not known'}")
    return found


def _changed(what: str, before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return [
        f"The {what} {name} was {before.get(name, 'not there')} and is {now.get(name, 'not there')}" for name in names
    ]
