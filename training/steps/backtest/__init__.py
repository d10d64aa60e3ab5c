"""Replay history under several retraining policies and compare what they would have cost."""

from training.contract.messages import BacktestInputs, BacktestResult
from training.settings import StateSettings


def run(inputs: BacktestInputs, settings: StateSettings) -> BacktestResult:
    """Compare the policies; the report goes to `<work>/<model>/backtests/<id>/reports/<…>/` and to a run in MLflow.

    Nothing else of the live state is written: trainings and verdicts are those of the live steps, in a registry of the
    backtest's own. What was computed for the same data, code and spec before is found again, also after a kill. Raises
    InputError for an unknown policy, DataContractError when the period is too short or no first champion can be
    trained, TransientError when MLflow does not answer.
    """
    # Worker processes import this package before they set the number of their threads.
    from training.steps.backtest.compared_policies import compare_policies

    return compare_policies(inputs, settings)
