"""Read the features of events from Redis as the prediction service does."""

import asyncio
from typing import Any

from training.adapters.features import Features, OnlineFeatures
from training.adapters.features.online_stores._redis_rows import RedisLayout, RedisReader
from training.settings import Settings


def read_from_redis(settings: Settings, features: Features, rows: list[dict[str, Any]]) -> OnlineFeatures:
    """The features of `rows` (events), in one round trip and without Feast's own reader."""

    async def read() -> OnlineFeatures:
        plan, layout, reader = features.plan(), RedisLayout(settings), RedisReader(settings.online, 1.0)
        try:
            answers = await reader.read(layout.reads(plan.views, rows))
            return plan.assemble(rows, layout.decoded(plan.views, len(rows), answers))
        finally:
            await reader.close()

    return asyncio.run(read())
