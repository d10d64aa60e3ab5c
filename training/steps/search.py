"""Try parameters of one estimator: one part of its search."""

from training.contract.messages import SearchInputs, SearchResult
from training.fit_job import FitJob
from training.settings import StateSettings
from training.tuning import run_part


def run(inputs: SearchInputs, settings: StateSettings) -> SearchResult:
    """Run the part, or resume it from `<work>/<model>/searches/<fingerprint>/`. The trials are child runs of its run.

    The same inputs again give the run that they gave before. Raises InputError for a part that the search does not
    have, ConfigError for several processes or too short a window, DataContractError when nothing can be measured,
    TransientError when MLflow does not answer.
    """
    return run_part(FitJob.of(inputs, settings), inputs.part, settings)
