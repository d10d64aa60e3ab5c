"""A pytest plugin that prints what tests cost in CPU seconds: `make test PYTEST='-p testing.cpu_costs'`.

It counts the process of a test and the processes that it has started and waited for. A fixture counts for the test that
needs it first, and by itself; a process that a session's fixture started counts for the last test of its worker. CPU
seconds hardly depend on what else the machine does.
"""

import resource
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

#: Lines of each table.
SHOWN = 25
#: What is added up: table → name → CPU seconds.
Costs = dict[str, Counter[str]]

_costs: Costs = {"files": Counter(), "tests": Counter(), "fixtures": Counter()}


def _used() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    before = _used()
    result = yield
    cost = _used() - before
    _costs["tests"][item.nodeid] += cost
    _costs["files"][item.nodeid.partition("::")[0]] += cost
    return result


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
    before = _used()
    result = yield
    _costs["fixtures"][f"{fixturedef.argname} of {fixturedef.baseid or 'all'}"] += _used() - before
    return result


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # A worker process of pytest-xdist.
        session.config.workeroutput["cpu_costs"] = {table: dict(costs) for table, costs in _costs.items()}
        return
    print(f"\n\nCPU seconds of all tests: {sum(_costs['files'].values()):.0f}")
    for table, costs in _costs.items():
        print(f"-- {table}", *(f"{cost:8.1f} {name}" for name, cost in costs.most_common(SHOWN)), sep="\n")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    for table, costs in getattr(node, "workeroutput", {}).get("cpu_costs", {}).items():
        _costs[table].update(costs)
