"""Find mistakes in the three files of a model before anything runs: spec, feature SQL, Feast definitions."""

import hashlib
import json
import logging
from importlib.metadata import version
from pathlib import Path

from training import storage
from training.contract.errors import ConfigError, StepError
from training.contract.messages import CheckInputs, CheckResult
from training.contract.model_spec import ModelSpec, read_model_spec
from training.contract.problems import Problem, without_path
from training.domain.identity import digest
from training.settings import ROOT, StateSettings

log = logging.getLogger("perennial")

#: The libraries that read the files. Another version of them may find other mistakes.
_LIBRARIES = ("duckdb", "feast", "numpy", "pandas")
_STORE = "feature_store.yaml"


def run(inputs: CheckInputs, settings: StateSettings) -> CheckResult:
    """Check the model's files. Files that have passed are checked again only when they or the code here change.

    Raises ConfigError with all problems that were found.
    """
    files = _digest(inputs.model, settings)
    record = storage.join(settings.work, "checks", f"{inputs.model}.json")
    if storage.read(record) == _record_content(files):
        log.info("The files of %s have not changed since they passed the check (recorded in %s)", inputs.model, record)
        return CheckResult(outcome="unchanged", digest=files)
    found = find_problems(inputs.model, settings)
    for line in listing([problem for problem in found if not problem.sure]):
        log.warning("This may be intended: %s", line)
    if problems := [problem for problem in found if problem.sure]:
        listed = "".join(f"\n- {line}" for line in listing(problems))
        raise ConfigError(
            f"Mistakes in the files of {inputs.model}: {len(problems)}{listed}",
            hint="Correct the files. `make check` checks them without Airflow.",
        )
    storage.write(record, _record_content(files))
    return CheckResult(outcome="passed", digest=files)


def find_problems(model: str, settings: StateSettings) -> list[Problem]:
    """All problems in the files of `model`. Takes a few seconds, because it imports Feast and DuckDB."""
    path = settings.models_dir / f"{model}.yaml"
    try:
        spec = read_model_spec(model, settings.models_dir)
    except StepError as error:
        return [Problem(file=str(path), place="", what=without_path(error.message, str(path)), fix=error.hint)]
    missing = _missing_files(model, settings)
    if not isinstance(spec, ModelSpec):
        return [*spec, *missing]
    from training.steps.check.estimators import check_estimators

    problems = [*check_estimators(spec, str(path)), *missing]
    return problems if missing else [*problems, *_features(spec, settings)]


def listing(problems: list[Problem]) -> list[str]:
    """A line for each problem: file, place, what is wrong, what to do."""
    return [f"{problem.file}: {problem}\n    → {problem.fix}" for problem in problems]


def _features(spec: ModelSpec, settings: StateSettings) -> list[Problem]:
    from training.steps.check.batch_sql import check_sql
    from training.steps.check.definitions import FeastCheck

    sql = check_sql(spec, settings.feature_repo / f"{spec.name}.sql")
    file = str(settings.feature_repo / f"{spec.name}.py")
    return [*sql.problems, *FeastCheck(settings, spec, file, sql).problems()]


def _missing_files(model: str, settings: StateSettings) -> list[Problem]:
    fixes = {
        f"{model}.sql": "Write one SELECT per feature table. docs/your-model.md shows how.",
        f"{model}.py": "Define Feast's views and the service. docs/your-model.md shows how.",
        _STORE: "Every feature repository needs this file. Copy feature_repo/feature_store.yaml.",
    }
    return [
        Problem(file=str(settings.feature_repo / name), place="", what="There is no such file", fix=fix)
        for name, fix in fixes.items()
        if not (settings.feature_repo / name).is_file()
    ]


def _digest(model: str, settings: StateSettings) -> str:
    """A digest of the model's files, of files that they may import or share names with, and of the code that checks."""
    repo = settings.feature_repo
    files = [repo / f"{model}.sql", repo / _STORE]
    files += sorted([*settings.models_dir.glob("*.yaml"), *repo.glob("*.py"), *Path(ROOT, "training").rglob("*.py")])
    digests = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()}
    return digest([digests, {library: version(library) for library in _LIBRARIES}])


def _record_content(digest: str) -> bytes:
    return json.dumps({"passed": digest}).encode()
