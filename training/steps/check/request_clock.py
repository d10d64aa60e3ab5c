"""Find calls of the clock in the function of an on-demand view, by parsing the file that defines it.

Running the function does not show them: a feature such as the hours since the event is the same in all runs of a check,
but in training it is another number than it was in the request.
"""

import ast
from collections.abc import Iterator

#: Methods and functions of the current time, however their module is named.
_CLOCKS = frozenset({"now", "utcnow", "today", "time_ns", "monotonic", "perf_counter", "localtime", "gmtime"})
#: Functions that read the clock when their argument is one of these texts.
_PARSERS, _WORDS = frozenset({"datetime64", "Timestamp", "to_datetime"}), frozenset({"now", "today"})


def clock_calls(source: str, function: str) -> list[str]:
    """Calls of the current time in `function` of the Python text `source`, and in the functions of it that it names.

    Each as `line 12: datetime.now(UTC)`. Not found: calls in other modules, and functions under another name.
    """
    functions = {node.name: node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)}
    waiting, seen = [function], set[str]()
    found: list[tuple[int, str]] = []
    while waiting:
        name = waiting.pop()
        if name in seen or name not in functions:
            continue
        seen.add(name)
        nodes = [node for statement in functions[name].body for node in ast.walk(statement)]
        waiting += [node.id for node in nodes if isinstance(node, ast.Name)]
        found += _calls(nodes)
    return [f"line {line}: {text}" for line, text in sorted(set(found))]


def _calls(nodes: list[ast.AST]) -> Iterator[tuple[int, str]]:
    for node in nodes:
        if isinstance(node, ast.Call) and _reads_clock(node):
            yield node.lineno, ast.unparse(node)


def _reads_clock(call: ast.Call) -> bool:
    called = call.func
    name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
    if name in _PARSERS:
        return any(isinstance(each, ast.Constant) and each.value in _WORDS for each in call.args)
    of_time = isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id == "time"
    return name in _CLOCKS or (name == "time" and of_time)
