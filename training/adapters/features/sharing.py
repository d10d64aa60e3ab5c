"""Find names that two sources share. In one Feast project they would overwrite each other's online rows."""

import logging
from collections.abc import Iterable, Iterator

from training.adapters.features.definitions import Definitions, load_definitions
from training.contract.errors import ConfigError
from training.contract.source_spec import SourceSpec, load_source_spec
from training.settings import StateSettings

log = logging.getLogger("perennial")


def clashes(
    definitions: Definitions, spec: SourceSpec, others: Iterable[str], settings: StateSettings
) -> Iterator[ConfigError]:
    """A ConfigError for each source in `others` that defines a view or a service with a name of `definitions`.

    The errors of two sources that share a name are equal. A source whose files cannot be loaded is left out; the check
    of that source reports the mistake.
    """
    folder = settings.feature_repo
    for name in others:
        try:
            theirs = load_definitions(folder, load_source_spec(name, settings.feature_repo))
        except ConfigError as error:
            log.info("Cannot compare the feature names of %s with those of %s: %s", name, spec.name, error)
            continue
        if shared := shared_names(definitions, theirs):
            first, second = sorted((spec.name, name))
            path = next(p for p in (folder / f"{second}.py", folder / f"{second}.yaml") if p.is_file())
            problem = f"{path}: Sources {first!r} and {second!r} both define {', '.join(sorted(shared))}"
            hint = "They would overwrite each other's online rows. Give them names that differ, in .py, .sql and spec."
            yield ConfigError(problem, hint)


def shared_names(one: Definitions, other: Definitions) -> list[str]:
    """The objects that both define and that two sources cannot share, such as "feature view 'x'".

    Feast has one object per name. An entity may be shared when its join key and its type are equal.
    """

    def named(definitions: Definitions) -> dict[str, str]:
        views = {view.name.lower(): "feature view" for view in (*definitions.views, *definitions.on_demand)}
        return views | {name.lower(): "feature service" for name in definitions.services}

    def keyed(definitions: Definitions) -> dict[str, tuple[str, str]]:
        return {e.name.lower(): (e.join_key, str(e.value_type)) for e in definitions.entities}

    found = [f"{kind} {name!r}" for name, kind in named(one).items() if name in named(other)]
    theirs = keyed(other)
    return found + [f"entity {name!r}" for name, key in keyed(one).items() if theirs.get(name, key) != key]
