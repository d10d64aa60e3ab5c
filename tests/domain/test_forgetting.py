"""Which rows are a person's."""

import json

import pyarrow as pa
import pytest

from training.contract.artifact import Golden
from training.contract.errors import InputError
from training.domain.forgetting import (
    Entity,
    ids_of,
    look_alikes,
    one_of,
    parse_entity,
    quarantined,
    without,
    written_as,
)

TYPES = {"customer_id": pa.int64(), "short": pa.int16(), "carrier": pa.string(), "weight": pa.float64()}


def test_an_entity_is_read_in_the_type_of_its_column() -> None:
    assert parse_entity("customer_id=7", TYPES) == Entity("customer_id", 7)
    assert parse_entity(" customer_id = -007 ", TYPES) == Entity("customer_id", -7)
    assert parse_entity(f"customer_id={-(2**63)}", TYPES) == Entity("customer_id", -(2**63))
    # Spaces are a part of a text.
    assert parse_entity(" carrier =O'Hare=x ", TYPES) == Entity("carrier", "O'Hare=x ")
    assert Entity("carrier", "O'Hare").predicate == "\"carrier\" = 'O''Hare'"


def test_a_misspelt_column_is_told_with_the_one_that_was_meant() -> None:
    with pytest.raises(InputError) as error:
        parse_entity("custmer_id=7", TYPES)
    assert error.value.hint.startswith("Did you mean 'customer_id'? Write <column>=<value>.")


@pytest.mark.parametrize(
    "text",
    [
        *("customer_id", "amount=7", "=7", "customer_id=seven", "customer_id=1_0", "customer_id=7.0", "customer_id=٧"),
        *("customer_id=2026-01-05", "customer_id=", f"customer_id={2**63}", "customer_id=" + "9" * 5000),
        *("short=32768", "short=-32769", "weight=1.5", "carrier="),
    ],
)
def test_what_names_no_entity_is_refused_without_its_value(text: str) -> None:
    with pytest.raises(InputError) as error:
        parse_entity(text, TYPES)
    value = text.partition("=")[2]
    assert len(value) < 3 or value not in str(error.value)


def test_many_values_are_several_predicates() -> None:
    assert one_of("order", {3, 1}) == ['"order" IN (1, 3)']
    assert written_as("id", {3}) == ["CAST(id AS VARCHAR) IN ('3', '3.0')"]
    assert len(one_of("id", range(2500))) == 3
    assert one_of("id", []) == []


def test_quarantined_rows_are_found_whatever_type_the_value_has() -> None:
    rows = [{"customer_id": value, "id": number} for number, value in enumerate([7, "7", 7.0, " 7 ", "70", None, 17])]
    texts = [json.dumps(row) for row in rows] + [json.dumps([7]), json.dumps({"id": "9"})]
    found = quarantined(texts, Entity("customer_id", 7), "id", {9})
    assert sorted(json.loads(text)["id"] for text in found if '"9"' not in text) == [0, 1, 2, 3]
    assert json.dumps({"id": "9"}) in found
    assert len(found) == 5


def test_in_texts_a_zero_in_front_is_another_person() -> None:
    rows = [{"carrier": value, "id": number} for number, value in enumerate(["007", "7", 7, 7.0, " 7", None, "None"])]
    texts = [json.dumps(row) for row in rows]

    def found(value: str, ids: set[str]) -> list[int]:
        return sorted(json.loads(text)["id"] for text in quarantined(texts, Entity("carrier", value), "id", ids))

    assert found("007", set()) == [0]
    assert found("7", set()) == [1, 2, 3]
    assert found("None", set()) == [6]
    assert found("x", {"5", "04"}) == [5]


def test_events_in_quarantine_have_ids_too() -> None:
    texts = [json.dumps(row) for row in ({"c": "7", "id": "12"}, {"c": 7, "id": "x"}, {"c": 8, "id": 1}, {"c": 7}, [7])]
    assert ids_of(texts, Entity("c", 7), "id", number=True) == {12}
    assert ids_of(texts, Entity("c", 7), "id", number=False) == {"12", "x"}


def test_values_that_look_alike_are_counted() -> None:
    values = ["Müller", "Mu\u0308ller", "MÜLLER", " Müller", "Muller", "Müllers", "Müller"]
    assert look_alikes(values, Entity("name", "Müller")) == 3


def test_golden_rows_without_the_entity_stay_together() -> None:
    golden = Golden(
        features=[[1.0], [2.0], [3.0]],
        scores=[0.1, 0.2, 0.3],
        events=[{"customer_id": 7}, {"customer_id": 8}, {"customer_id": 7}],
        batch=[{"a": 1.0}, {"a": 2.0}, {"a": 3.0}],
    )
    left = without(golden, Entity("customer_id", 7))
    assert (left.features, left.scores, left.events, left.batch) == ([[2.0]], [0.2], [{"customer_id": 8}], [{"a": 2.0}])
