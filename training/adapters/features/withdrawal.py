"""Takes a source or a model out of the published registry and out of the online store."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import training.adapters.features.store as stores
from training.adapters.features.definitions import Definitions, load_definitions
from training.adapters.features.online_record import OnlineRecord
from training.adapters.features.online_stores import contract_errors, online_store
from training.contract.errors import ConfigError
from training.contract.source_spec import SourceSpec, load_source_spec, source_names
from training.settings import StateSettings

if TYPE_CHECKING:
    from feast import FeatureStore


def service_is_published(settings: StateSettings, name: str) -> bool:
    """Whether the published registry has a feature service `name`."""
    if not Path(settings.feature_registry).exists():
        return False
    return name in {each.name for each in stores.published_store(settings).list_feature_services()}


def withdraw_service(settings: StateSettings, name: str) -> None:
    """Delete the feature service `name` from the published registry; no error when there is none."""
    with stores.registry_lock(settings):
        if service_is_published(settings, name):
            with stores.changing_published(settings) as store:
                store.delete_feature_service(name)


def withdraw_source(settings: StateSettings, source: SourceSpec) -> int:
    """Delete the online rows of `source`, and its Feast objects from the published registry.

    An entity that another source has, too, stays. Returns the number of rows that were deleted, one for each entity of
    a view. It can be killed and called again. Raises ConfigError when the definitions of the source cannot be loaded,
    and TransientError when the online store does not answer.
    """
    definitions = load_definitions(settings.feature_repo, source)
    with stores.registry_lock(settings), contract_errors(settings):
        removed = _delete_rows(settings, source, definitions)
        if Path(settings.feature_registry).exists():
            with stores.changing_published(settings) as store:
                _delete_objects(store, definitions, _shared_entities(settings, source))
        for name in (f"{source.name}.online.json", f"{source.name}.applied"):
            Path(settings.feature_registry).with_name(name).unlink(missing_ok=True)
    return removed


def _delete_rows(settings: StateSettings, source: SourceSpec, definitions: Definitions) -> int:
    record, removed = OnlineRecord(settings, source.name), 0
    with contextlib.ExitStack() as stack:
        store = None
        for view in definitions.views:
            features, columns = record.stored(view.name)
            if not features and not columns:  # Never materialized: the store may not know the view.
                continue
            store = store or stack.enter_context(stores.private_store(settings, definitions.objects, online=True))
            online = online_store(settings)
            online.mark_complete(store.config, view.name, complete=False)
            removed += online.keep_only(store.config, view, set(), features, columns)
    return removed


def _delete_objects(store: "FeatureStore", definitions: Definitions, shared: set[str]) -> None:
    registry, project = store.registry, store.project
    views = {each.name for each in (*definitions.views, *definitions.on_demand)}
    for service in store.list_feature_services():
        if {projection.name for projection in service.feature_view_projections} & views:
            registry.delete_feature_service(service.name, project)
    for view in (*store.list_on_demand_feature_views(), *store.list_feature_views()):
        if view.name in views:
            registry.delete_feature_view(view.name, project)
    entities = {each.name for each in definitions.entities} - shared
    for entity in store.list_entities():
        if entity.name in entities:
            registry.delete_entity(entity.name, project)
    sources = {view.batch_source.name for view in definitions.views}
    for each in store.list_data_sources():
        if each.name in sources:
            registry.delete_data_source(each.name, project)


def _shared_entities(settings: StateSettings, source: SourceSpec) -> set[str]:
    """Entities of the other sources. Files that cannot be loaded are those of no published source."""
    found: set[str] = set()
    for name in source_names(settings.feature_repo):
        with contextlib.suppress(ConfigError):
            if name != source.name:
                spec = load_source_spec(name, settings.feature_repo)
                found |= {each.name for each in load_definitions(settings.feature_repo, spec).entities}
    return found
