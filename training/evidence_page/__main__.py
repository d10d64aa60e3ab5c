"""`python -m training.evidence_page <model> [<version>]`: fetch the evidence of a version, and say where it is."""

import sys
from pathlib import Path

from training.adapters.registry import CHAMPION, Registry
from training.contract.errors import ExitCode, InputError, StepError
from training.evidence_page import FOLDER, MODEL_CARD, PAGE
from training.settings import StateSettings, load_settings


def main(model: str, version: str = "") -> int:
    try:
        for line in where(model, version, load_settings()):
            print(line)
    except StepError as error:
        print(f"evidence failed: {error}", file=sys.stderr)
        return error.exit_code
    return ExitCode.OK


def where(model: str, version: str, settings: StateSettings) -> list[str]:
    """The files with the evidence of a version, which are fetched, and the address of its run in MLflow.

    Raises InputError when there is no such version, or when it has no evidence.
    """
    registry = Registry(settings.tracking_uri)
    if version and not version.isdecimal():
        raise InputError(f"{version!r} is not the number of a version", hint="Write VERSION=3, or leave it out.")
    registry.require_model(model)
    found = registry.get(model, int(version)) if version else registry.by_alias(model, CHAMPION)
    if found is None:
        raise InputError(f"{model} has no champion", hint="Name a version: VERSION=<number>.")
    folder = Path(settings.scratch) / model / FOLDER / f"v{found.version}"
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / name for name in (PAGE, MODEL_CARD)]
    for file in files:
        if not registry.download_file(found.run_id, f"{FOLDER}/{file.name}", file):
            problem = f"The run of {model} version {found.version} has no {FOLDER}/{file.name}"
            raise InputError(problem, hint="It was registered before there was evidence. Train a new version.")
    url = settings.mlflow_url or settings.tracking_uri
    lines = [f"Evidence of {model} version {found.version}", *(f"  {file}" for file in files)]
    if url.startswith("http"):
        lines.append(f"  {url}/#/models/{model}/versions/{found.version}, artifacts of its run, folder {FOLDER}")
    return lines


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
