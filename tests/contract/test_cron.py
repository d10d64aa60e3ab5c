"""Cron expressions: what is refused, and that Airflow's own parser takes the rest."""

import pytest

from training.contract.cron import cron_mistake

GOOD = ["0 3 * * 1", "*/5 * * * *", "0,30 8-18/2 1 jan-mar MON,wed", "59 23 29 2 *", "0 0 30 2 1", "5/10 * * * 7"]
BAD = [
    ("", "0 fields"),
    ("0 3 * * 1 0", "6 fields"),
    ("60 * * * *", "'60' as its minute"),
    ("* 24 * * *", "'24' as its hour"),
    ("* * 0 * *", "'0' as its day of the month"),
    ("* * * 13 *", "'13' as its month"),
    ("* * * * 8", "'8' as its day of the week"),
    ("*/0 * * * *", "the step '0'"),
    ("9-1 * * * *", "runs backwards"),
    ("1,,2 * * * *", "'nothing'"),
    ("a * * * *", "'a' is not within"),
    ("0 0 31 2,4 *", "does not exist in any of its months"),
    ("@often", "1 fields"),
    ("٣ * * * *", "'٣' is not within"),
    ("*/３ * * * *", "the step '３'"),
]


@pytest.mark.parametrize("expression", GOOD)
def test_what_airflow_takes_is_taken(expression: str) -> None:
    croniter = pytest.importorskip("croniter").croniter
    assert cron_mistake(expression) is None
    croniter(expression).get_next()


@pytest.mark.parametrize("preset", ["@daily", "@weekly", "@quarterly"])
def test_airflows_presets_are_taken(preset: str) -> None:
    assert cron_mistake(preset) is None


@pytest.mark.parametrize(("expression", "said"), BAD)
def test_what_does_not_parse_or_never_comes_is_refused(expression: str, said: str) -> None:
    assert said in (cron_mistake(expression) or "")
