"""`python -m training.code_change`: requests a training of every model whose champion was trained by other code.

Run it after a deployment. The same code makes one request, however often it is deployed. The request waits in the
ledger, and the next run of the monitor DAG starts the training.
"""

import json
import logging
import sys

from training.adapters.registry import CHAMPION, Registry, Runs
from training.code import training_code
from training.contract.errors import ExitCode, StepError
from training.contract.model_spec import ModelSpec, load_model_spec, model_names
from training.runner import run_step
from training.settings import StateSettings, load_settings

#: A tag of an MLflow run: the digest of the code that trained the model.
TAG = "training_code"

log = logging.getLogger("perennial")


def main() -> int:
    """Returns 0, or the exit code of the first model whose request failed."""
    try:
        settings = load_settings()
        logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
        models, sources = settings.models_dir, settings.feature_repo
        codes = [_request(load_model_spec(name, models, sources), settings) for name in model_names(models)]
    except StepError as error:
        print(f"code_change failed: {error}", file=sys.stderr)
        return error.exit_code
    return next((code for code in codes if code), ExitCode.OK)


def _request(spec: ModelSpec, settings: StateSettings) -> int:
    champion = Registry(settings.tracking_uri).by_alias(spec.name, CHAMPION)
    if champion is None:
        log.info("%s has no champion. Its first training will use this code", spec.name)
        return ExitCode.OK
    runs = Runs(settings.tracking_uri, spec.name, str(settings.home / "mlflow"))
    code, trained_by = training_code(settings, spec), runs.tags(champion.run_id).get(TAG)
    if code == trained_by:
        log.info("Version %d of %s was trained by this code, %s", champion.version, spec.name, code)
        return ExitCode.OK
    log.info("Version %d of %s was trained by code %s, this is %s", champion.version, spec.name, trained_by, code)
    inputs = {
        "model": spec.name,
        "trigger": "code",
        "reason": f"The training code is now {code}",
        "evidence": {TAG: code},
    }
    return run_step("decide_retraining", json.dumps(inputs), "-")


if __name__ == "__main__":
    sys.exit(main())
