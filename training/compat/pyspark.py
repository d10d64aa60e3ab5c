"""pyspark 4.1: what its Spark Connect client offers through private names only."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType


def arrow_batches(frame: DataFrame) -> Iterator[pa.Table]:
    """The rows of `frame` in order, as they arrive. `DataFrame.toArrow` holds all of them in memory."""
    made: Any = frame  # A pyspark.sql.connect.dataframe.DataFrame.
    client, plan = made.sparkSession.client, made._plan
    for found in client.to_table_as_iterator(plan.to_proto(client), plan.observations):
        if isinstance(found, pa.Table):
            yield found


def spark_schema(schema: pa.Schema) -> StructType:
    """`schema` for a reader of Spark. Raises pyspark's UNSUPPORTED_DATA_TYPE_FOR_ARROW_CONVERSION."""
    return from_arrow_schema(schema, prefer_timestamp_ntz=True)
