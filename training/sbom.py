"""The software bill of materials of this environment, as CycloneDX 1.6 in JSON: `python -m training.sbom`.

Also run as a file while an image is built, so it imports the standard library only. It lists every installed Python
distribution and, in an image, every Debian package, with version, package URL and licence. The same environment gives
the same bytes: there is no time and no random serial number in it.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

SBOM_FILE = "sbom.cdx.json"
_DPKG = Path("/var/lib/dpkg/status")
_SEPARATORS = re.compile(r"[-_.]+")
_CLASSIFIER = "License :: "
#: Text of classifiers, and of fields that hold a name → the identifier of SPDX.
_SPDX = {
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "Apache Software License 2.0": "Apache-2.0",
    "Apache": "Apache-2.0",
    "Apache-2": "Apache-2.0",
    "Artistic License": "Artistic-1.0-Perl",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "BSD 3-Clause": "BSD-3-Clause",
    "CC0": "CC0-1.0",
    "BSD 3-Clause License": "BSD-3-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "The Unlicense (Unlicense)": "Unlicense",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.1-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Library or Lesser General Public License (LGPL)": "LGPL-2.1-or-later",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "The MIT License (MIT)": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "PSF": "PSF-2.0",
    "Zope Public License": "ZPL-2.1",
}
#: Of packages whose metadata names none, or that only some versions of Python need: what their files say.
KNOWN = {"async-timeout": "Apache-2.0", "huey": "MIT", "rich-click": "MIT", "sigstore-models": "MIT", "skops": "MIT"}


def sbom(name: str, packages: Iterable[Distribution] | None = None, system: Path | None = None) -> dict[str, Any]:
    """The bill of materials of `name`: of `packages`, by default all that are installed, and of the Debian packages
    that the file `system` lists, if there is one."""
    found = [_python(each) for each in (distributions() if packages is None else packages)]
    if system is not None and system.is_file():
        here = (each for each in _paragraphs(system.read_text()) if "installed" in each.get("Status", "").split())
        found += [_debian(fields) for fields in here]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": name, "bom-ref": name}},
        "components": sorted({each["purl"]: each for each in found}.values(), key=lambda each: each["purl"]),
    }


def text(bill: dict[str, Any]) -> str:
    """As it is written to a file."""
    return json.dumps(bill, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def licence_of(package: Distribution) -> str | None:
    """An SPDX expression, or the name that the package gives its licence; None when it names none."""
    fields = package.metadata
    if "License-Expression" in fields:
        return str(fields["License-Expression"])
    classifiers = [each.removeprefix(_CLASSIFIER) for each in fields.get_all("Classifier") or () if _CLASSIFIER in each]
    named = sorted({_spdx(each.removeprefix("OSI Approved :: ")) for each in classifiers} - {"OSI Approved"})
    if named:
        return " OR ".join(named)
    said = " ".join(str(fields["License"]).split()) if "License" in fields else ""
    if said and len(said) < 60:
        return _spdx(said)
    return KNOWN.get(normal(str(fields["Name"])))


def normal(name: str) -> str:
    """A distribution's name as an index spells it."""
    return _SEPARATORS.sub("-", name).lower()


def _spdx(said: str) -> str:
    return _SPDX.get(said, said)


def _python(package: Distribution) -> dict[str, Any]:
    name, version = normal(package.metadata["Name"]), package.version
    return _component(name, version, f"pkg:pypi/{quote(name)}@{quote(version)}", licence_of(package))


def _component(name: str, version: str, url: str, licence: str | None) -> dict[str, Any]:
    licences: dict[str, Any] = {} if licence is None else {"licenses": [_choice(licence)]}
    return {"type": "library", "name": name, "version": version, "purl": url, "bom-ref": url} | licences


def _choice(licence: str) -> dict[str, Any]:
    """An expression has identifiers only. Anything else is a name."""
    parts = re.split(r"\s+(?:AND|OR|WITH)\s+|[()]", licence)
    if all(re.fullmatch(r"[A-Za-z0-9.+-]*", part.strip()) for part in parts):
        return {"expression": licence}
    return {"license": {"name": licence}}


def _paragraphs(content: str) -> Iterator[dict[str, str]]:
    for paragraph in content.split("\n\n"):
        lines = [line for line in paragraph.splitlines() if line[:1].strip() and ": " in line]
        yield {name: value for name, _, value in (line.partition(": ") for line in lines)}


def _debian(fields: dict[str, str]) -> dict[str, Any]:
    name, version, kind = fields["Package"], fields["Version"], fields["Architecture"]
    url = f"pkg:deb/debian/{quote(name)}@{quote(version, safe='')}?arch={kind}"
    return _component(name, version, url, None)  # dpkg does not know: /usr/share/doc/<package>/copyright does.


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="perennial", help="what the bill of materials is of")
    parser.add_argument("--system", action="store_true", help="with the Debian packages of this system")
    arguments = parser.parse_args()
    sys.stdout.write(text(sbom(arguments.name, system=_DPKG if arguments.system else None)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
