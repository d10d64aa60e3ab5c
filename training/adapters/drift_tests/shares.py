"""The drift test `shares`: whether the shares of a column's rows with certain values have changed."""

from training.contract.registries import DRIFT_TESTS
from training.domain.shares import compare_shares

DRIFT_TESTS.register("shares")(compare_shares)
