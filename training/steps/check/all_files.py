"""Check several sources and models together, so that each mistake is reported once, where it can be corrected."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from training.contract.errors import ConfigError
from training.contract.model_spec import source_of
from training.contract.problems import Problem
from training.contract.source_spec import SourceSpec, read_source_spec, source_names
from training.settings import StateSettings
from training.steps.check import find_model_problems, find_source_problems


class Checked(NamedTuple):
    """What the check of a source or model found."""

    what: str
    """`source <name>` or `model <name>`."""
    problems: list[Problem]
    seconds: float
    waits_for: str = ""
    """Why it was not checked: a mistake elsewhere that decides about it. Empty: it was."""


def check_all(sources: Sequence[str], models: Sequence[str], settings: StateSettings) -> Iterator[Checked]:
    """The problems of `sources`, then of `models`, without those that follow from another one.

    A model waits until the spec of its source has no mistakes. Mistakes in the SQL of a source wait until the labels
    suit the tasks of its models, because a label of a wrong type breaks the SQL as well.
    """
    said = list[Problem]()
    broken = {name for name in sources if _is_broken(name, settings)}
    checked = {model: _checked_model(model, broken, settings) for model in models}
    for name in sources:
        found = _timed(f"source {name}", partial(find_source_problems, name, settings))
        wrong = [m for m in models if source_of(m, settings.models_dir) == name and _has_wrong_label(checked[m])]
        if wrong and name not in broken and any(problem.sure for problem in found.problems):
            yield found._replace(problems=[], waits_for=f"the label of model {wrong[0]}")
        else:
            yield _once(found, said)
    known, missing = source_names(settings.feature_repo), set[str]()
    for model in models:
        source = source_of(model, settings.models_dir)
        if source is not None and source not in known and source in missing:
            yield Checked(f"model {model}", [], 0.0, f"source {source}")
            continue
        missing |= {source} if source is not None else set()
        yield _once(checked[model], said)


def _is_broken(source: str, settings: StateSettings) -> bool:
    try:
        return not isinstance(read_source_spec(source, settings.feature_repo), SourceSpec)
    except ConfigError:
        return True


def _checked_model(model: str, broken: set[str], settings: StateSettings) -> Checked:
    if (source := source_of(model, settings.models_dir)) in broken:
        return Checked(f"model {model}", [], 0.0, f"source {source}")
    return _timed(f"model {model}", partial(find_model_problems, model, settings))


def _has_wrong_label(model: Checked) -> bool:
    return any(problem.place == "label" for problem in model.problems)


def _timed(what: str, find: Callable[[], list[Problem]]) -> Checked:
    started = time.monotonic()
    problems = find()
    return Checked(what, problems, time.monotonic() - started)


def _once(checked: Checked, said: list[Problem]) -> Checked:
    """Without the problems that another source has as well, such as a name that two sources share."""
    new = [problem for problem in checked.problems if problem not in said]
    said += new
    return checked._replace(problems=new)
