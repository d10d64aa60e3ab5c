"""What a backtest refuses before it reads anything."""

from pathlib import Path
from typing import Any

import pytest

from training.contract.errors import InputError
from training.contract.messages import BacktestInputs
from training.settings import Settings
from training.steps import backtest


@pytest.mark.parametrize(
    ("given", "said", "hint"),
    [
        ({"policies": ["weakly"]}, "no policy 'weakly'", "Did you mean 'weekly'?"),
        ({"policies": ["oracle"]}, "The oracle alone cannot be recommended", "another policy"),
        ({"estimators": ["forest"]}, "has no estimator forest", "It has "),
    ],
)
def test_what_it_does_not_know_is_named(tmp_path: Path, given: dict[str, Any], said: str, hint: str) -> None:
    inputs = BacktestInputs.model_validate({"model": "card_fraud", **given})
    with pytest.raises(InputError, match=said) as raised:
        backtest.run(inputs, Settings(home=tmp_path))
    assert hint in raised.value.hint
