"""An offline store for Feast where only its online store is used.

Feast imports the offline store that its configuration names, used or not. Its default brings dask, which takes 1.4 s of
CPU in every step and in every start of the prediction service.
"""

from typing import Any, Literal, NoReturn

from feast.infra.offline_stores.offline_store import OfflineStore
from feast.repo_config import FeastConfigBaseModel


class NoOfflineStoreConfig(FeastConfigBaseModel):
    type: Literal["training.compat.no_offline_store.NoOfflineStore"] = "training.compat.no_offline_store.NoOfflineStore"


class NoOfflineStore(OfflineStore):
    """Takes any data source for valid. History is read elsewhere, from pinned versions of the tables."""

    def validate_data_source(self, config: Any, data_source: Any) -> None:
        data_source.validate(config=config)

    @staticmethod
    def pull_latest_from_table_or_query(*_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError("This process has no offline store: read the feature tables in the lake")

    get_historical_features = pull_all_from_table_or_query = pull_latest_from_table_or_query
