"""Which online store a value of CT_ONLINE_STORE selects, and its reader."""

import asyncio

import pytest

from tests.feature_repo.world import compute, payments, put
from training.adapters.features import Features
from training.adapters.features.online_stores import ONLINE_STORES, online_store
from training.contract.errors import ConfigError
from training.contract.model_spec import load_model_spec
from training.settings import Settings


@pytest.mark.parametrize(
    ("online", "name"),
    [("/state/online.db", "sqlite"), ("redis://host:6379/0", "redis"), ("rediss://host", "redis")],
)
def test_the_scheme_decides(online: str, name: str) -> None:
    assert type(online_store(Settings(online_store=online))) is ONLINE_STORES.find(name)


def test_an_unknown_store_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no online store 'abacus'") as error:
        online_store(Settings(online_store="abacus://host"))
    assert "redis, sqlite" in error.value.hint


def test_concurrent_lookups_in_sqlite_find_what_feast_finds(settings: Settings) -> None:
    put(settings, *payments(10))
    features = Features(settings, load_model_spec("card_fraud"))
    features.materialize(compute(settings, 1, 10))
    rows = [{"customer_id": i, "terminal_id": 100 + i} for i in range(8)]
    plan = features.plan()

    async def look_up() -> list:
        reader = online_store(settings).reader(60.0)
        try:
            return await asyncio.gather(*(reader.find([row], plan.views) for row in rows))
        finally:
            reader.close()

    for row, found in zip(rows, asyncio.run(look_up()), strict=True):
        for one, other in zip(found, features.reader.look_up([row], plan.views), strict=True):
            assert repr(one) == repr(other)
