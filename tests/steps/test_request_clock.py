"""Calls of the clock in request functions are found by parsing, whatever the module is called."""

import pytest

from training.steps.check.request_clock import clock_calls

FUNCTION = """
def helper(x):
    {}

def features(inputs):
    return helper(inputs["x"])

def other(inputs):
    return time.time()
"""


@pytest.mark.parametrize(
    "call",
    [
        "datetime.now(UTC)",
        "dt.datetime.utcnow()",
        "date.today()",
        "pd.Timestamp.now()",
        "pd.Timestamp('now')",
        "np.datetime64('today')",
        "time.time()",
        "time_ns()",
    ],
)
def test_a_call_of_the_clock_is_found_with_its_line(call: str) -> None:
    assert clock_calls(FUNCTION.format(f"return x - {call}"), "features") == [f"line 3: {call}"]


@pytest.mark.parametrize("text", ["np.asarray(x, 'datetime64[s]')", "x.dt.time()", "pd.to_datetime(x)", "x.now"])
def test_what_does_not_read_the_clock_is_not_found(text: str) -> None:
    assert clock_calls(FUNCTION.format(f"return {text}"), "features") == []


def test_a_function_under_another_name_is_not_found() -> None:
    assert clock_calls(FUNCTION.format("return x"), "nothing") == []
