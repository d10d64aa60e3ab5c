"""Named columns become the matrix that a model gets."""

import numpy as np

from training.contract.feature_definitions import FeatureColumn
from training.domain.encoding import encoded, most_frequent
from training.domain.parity import made_rows


def test_the_most_frequent_categories_come_first_and_ties_in_alphabetical_order() -> None:
    values = ["b", "a", "c", "c", None, "b", "d", float("nan"), "a", "c"]
    assert most_frequent(values, 3) == ("c", "a", "b")
    assert most_frequent(reversed(values), 3) == ("c", "a", "b")
    assert most_frequent([None], 3) == ()


def test_numbers_booleans_and_texts_become_one_matrix() -> None:
    values = {
        "distance": np.array([1.5, np.nan, 3.0]),
        "late": np.array([True, False, None], object),
        "carrier": np.array(["AA", None, "XX"], object),
        "whole": np.array([1, 2, 3]),
    }
    columns = [
        FeatureColumn(name="carrier", categories=("UA", "AA"), may_be_missing=True),
        FeatureColumn(name="distance"),
        FeatureColumn(name="late"),
        FeatureColumn(name="whole"),
    ]
    found = encoded(values, columns)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[1, 1.5, 1, 1], [np.nan, np.nan, 0, 2], [2, 3, np.nan, 3]])


def test_made_rows_have_missing_values_and_unseen_categories_where_they_may_be() -> None:
    columns = [
        FeatureColumn(name="a"),
        FeatureColumn(name="b", may_be_missing=True),
        FeatureColumn(name="c", categories=("x", "y"), may_be_missing=True),
    ]
    features = np.zeros((6, 3), np.float32)
    made = made_rows(features, columns)
    assert np.isnan(made).sum(axis=0).tolist() == [0, 2, 2]
    assert (made[:, 2] == 2).sum() == 2
    assert not np.isnan(features).any()
    assert not len(made_rows(features, columns[:1]))
