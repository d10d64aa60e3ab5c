"""The licences of what the lock names: `python -m training.licences` prints docs/licences.md.

Needs all extras of the lock installed: `EXTRAS=spark make setup-dev`.
"""

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from training.sbom import KNOWN, licence_of

LOCK = Path(__file__).parent.parent / "requirements.txt"
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==", re.MULTILINE)
#: Words of licences that ask more of whoever offers a service than this project can promise for its users.
_REFUSED = re.compile(r"AGPL|Affero|SSPL|Server Side|BUSL|Business Source|(?<!L)GPL(?!.*exception)|Commercial|-NC\b")
_PAGE = """# Licences

What [requirements.txt](../requirements.txt) names, by licence, as the packages' metadata says. `make docs` writes this
page. `A OR B` leaves the choice. A package without a licence, or whose every choice is a strong copyleft or commercial
one, fails a test. Each image has a bill of materials with the versions: [security.md](security.md#bills-of-materials).

| licence | packages |
|---|---|
"""


def locked() -> list[str]:
    """The packages of the lock."""
    return _PINNED.findall(LOCK.read_text())


def is_installed(name: str) -> bool:
    """Whether this environment has the package."""
    try:
        return bool(distribution(name))
    except PackageNotFoundError:
        return False


def licences(names: list[str]) -> dict[str, str | None]:
    """Package → its licence; None when its metadata names none, or when it is not installed."""
    return {name: licence_of(distribution(name)) if is_installed(name) else KNOWN.get(name) for name in names}


def problems(found: dict[str, str | None]) -> list[str]:
    """A sentence for each package whose licence is not known or not wanted."""
    unknown = [f"{name} names no licence, or is not installed" for name, licence in found.items() if licence is None]
    refused = [
        f"{name} has the licence {licence}"
        for name, licence in found.items()
        if licence is not None and all(_REFUSED.search(choice) for choice in licence.split(" OR "))
    ]
    return unknown + refused


def page(found: dict[str, str | None]) -> str:
    """docs/licences.md."""
    grouped: dict[str, list[str]] = {}
    for name, licence in found.items():
        grouped.setdefault(licence or "unknown", []).append(name)
    rows = sorted(grouped.items(), key=lambda row: (-len(row[1]), row[0]))
    return _PAGE + "".join(f"| {licence} | {', '.join(sorted(names))} |\n" for licence, names in rows)


if __name__ == "__main__":
    all_of_them = licences(locked())
    if wrong := problems(all_of_them):
        sys.exit("\n".join([*wrong, "To install the whole lock: EXTRAS=spark make setup-dev"]))
    sys.stdout.write(page(all_of_them))
