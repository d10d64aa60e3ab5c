import pytest

from training.contract.base import TableVersions
from training.domain.sources import number, versions_of


@pytest.mark.parametrize("versions", [{"events": 0}, {"events": 3, "labels": 0}, {"events": 3, "labels": 12}])
def test_the_number_stands_for_the_versions(versions: TableVersions) -> None:
    assert versions_of(number(versions)) == versions


def test_later_versions_have_greater_numbers() -> None:
    order: list[TableVersions] = [{"events": 3}, {"events": 3, "labels": 0}, {"events": 3, "labels": 9}, {"events": 4}]
    assert sorted(order, key=number) == order
