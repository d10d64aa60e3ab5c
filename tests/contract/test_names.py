"""How messages list names and values."""

from typing import Any

import pytest

from training.contract.names import listed


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (["late", "on_time", "till 2"], "late, on_time, till 2"),
        ([0, 0.5, True], "0, 0.5, True"),
        (["", "a, b", " c", "d'e"], """'', 'a, b', ' c', "d'e\""""),
        (["a; b"], r"'a\x3b b'"),
        (["naïve", "x\ny"], r"naïve, 'x\ny'"),
    ],
)
def test_a_text_that_could_be_read_as_something_else_is_quoted(values: list[Any], text: str) -> None:
    assert listed(values) == text
