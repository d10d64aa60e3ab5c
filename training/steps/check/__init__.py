"""Find mistakes before anything runs: in the files of a source (spec, feature SQL, Feast definitions) and of models."""

import hashlib
import json
import logging
from importlib.metadata import version
from pathlib import Path

from training import storage
from training.adapters.lake import EVENTS, Lake
from training.contract.errors import ConfigError, StepError
from training.contract.messages import CheckInputs, CheckResult
from training.contract.model_spec import ModelSpec, models_of, read_model_spec
from training.contract.problems import Problem, without_path
from training.contract.source_spec import FEATURE_STORE, SourceSpec, read_source_spec
from training.domain.identity import digest
from training.settings import ROOT, StateSettings

log = logging.getLogger("perennial")

#: The libraries that read the files. Another version of them may find other mistakes.
_LIBRARIES = ("duckdb", "feast", "numpy", "pandas")


def run(inputs: CheckInputs, settings: StateSettings) -> CheckResult:
    """Check the source's files. Files that have passed are checked again when they or the code here change, and for
    leakage on landed data when twice as much has landed.

    Mistakes in the specs of the models that learn from it are logged: they must not keep data from the other models.
    Raises ConfigError with all problems that were found in the files of the source.
    """
    files = _digest(inputs.source, settings)
    landed = Lake(settings.lake, inputs.source).version(EVENTS)
    record = storage.join(settings.work, "checks", f"{inputs.source}.json")
    if storage.read(record) == _record_content(files, landed):
        log.info("The files of %s have not changed since they passed the check (recorded in %s)", inputs.source, record)
        return CheckResult(outcome="unchanged", digest=files)
    found = find_source_problems(inputs.source, settings)
    for line in listing([problem for problem in found if not problem.sure]):
        log.warning("This may be intended: %s", line)
    models = models_of(inputs.source, settings.models_dir)
    if problems := [problem for problem in found if problem.sure]:
        listed = "".join(f"\n- {line}" for line in listing(problems))
        learn = f" The models that learn from it: {', '.join(models)}." if models else ""
        raise ConfigError(
            f"Mistakes in the files of {inputs.source}: {len(problems)}{listed}",
            hint=f"Correct the files. `make check` checks them without Airflow.{learn}",
        )
    for name in models:
        for line in listing(find_model_problems(name, settings)):
            log.error("The model %s cannot be trained: %s", name, line)
    storage.write(record, _record_content(files, landed))
    return CheckResult(outcome="passed", digest=files)


def find_source_problems(source: str, settings: StateSettings) -> list[Problem]:
    """All problems in the files of `source`. Takes a few seconds, because it imports Feast and DuckDB."""
    path = settings.feature_repo / f"{source}.yaml"
    try:
        spec = read_source_spec(source, settings.feature_repo)
    except StepError as error:
        return [Problem(file=str(path), place="", what=without_path(error.message, str(path)), fix=error.hint)]
    missing = _missing_files(source, settings)
    if not isinstance(spec, SourceSpec):
        return [*spec, *missing]
    return missing or _features(spec, settings)


def find_model_problems(model: str, settings: StateSettings) -> list[Problem]:
    """All problems in the spec of `model`. Mistakes in the spec of its source are one of them, without a place."""
    path = settings.models_dir / f"{model}.yaml"
    try:
        spec = read_model_spec(model, settings.models_dir, settings.feature_repo)
    except StepError as error:
        return [Problem(file=str(path), place="", what=without_path(error.message, str(path)), fix=error.hint)]
    if not isinstance(spec, ModelSpec):
        return spec
    from training.steps.check.chosen_features import check_features
    from training.steps.check.estimators import check_estimators

    return [*check_estimators(spec, str(path)), *check_features(spec, str(path), settings)]


def listing(problems: list[Problem]) -> list[str]:
    """A line for each problem: file, place, what is wrong, what to do."""
    return [f"{problem.file}: {problem}\n    → {problem.fix}" for problem in problems]


def _features(spec: SourceSpec, settings: StateSettings) -> list[Problem]:
    from training.steps.check.batch_sql import check_sql
    from training.steps.check.definitions import FeastCheck

    sql = check_sql(spec, settings, _never_null(spec, settings))
    file = str(settings.feature_repo / f"{spec.name}.py")
    return [*sql.problems, *FeastCheck(settings, spec, file, sql).problems()]


def _never_null(spec: SourceSpec, settings: StateSettings) -> dict[str, set[str]]:
    """View → its features that may not be null. Empty when the definitions have mistakes, which FeastCheck reports."""
    from training.adapters.features.definitions import load_definitions

    try:
        found = load_definitions(settings.feature_repo, spec)
    except StepError:
        return {}
    return {
        view.name: {field.name for field in view.features} - {*found.may_be_null[view.name]} for view in found.views
    }


def _missing_files(source: str, settings: StateSettings) -> list[Problem]:
    fixes = {FEATURE_STORE: "Every feature repository needs this file. Copy feature_repo/feature_store.yaml."}
    return [
        Problem(file=str(settings.feature_repo / name), place="", what="There is no such file", fix=fix)
        for name, fix in fixes.items()
        if not (settings.feature_repo / name).is_file()
    ]


def _digest(source: str, settings: StateSettings) -> str:
    """A digest of the source's files, of files that they may import or share names with, and of the code here."""
    repo = settings.feature_repo
    files = [repo / f"{source}.sql", *sorted([*repo.glob("*.yaml"), *repo.glob("*.py")])]
    files += sorted([*settings.models_dir.glob("*.yaml"), *Path(ROOT, "training").rglob("*.py")])
    digests = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()}
    return digest([digests, {library: version(library) for library in _LIBRARIES}])


def _record_content(digest: str, landed: int | None) -> bytes:
    """`landed`: the version of the events. Each time it has doubled, the files are checked on what has landed since."""
    return json.dumps({"passed": digest, "landed": 0 if landed is None else (landed + 1).bit_length()}).encode()
