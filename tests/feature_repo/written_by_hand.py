"""Sources with feature tables that are written by hand: SQL and Feast views instead of declarations."""

import shutil
from pathlib import Path

import yaml

from training.contract.source_spec import SourceSpec, load_source_spec
from training.domain.feature_sql import declared_queries
from training.settings import ROOT

SOURCE = "card_payments"
BY_HAND = Path(__file__).parent / "by_hand"


def copy_by_hand(folder: Path) -> Path:
    """A copy of the feature repo at `folder`, in which card_payments is written by hand."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "feature_repo", folder, ignore=ignored)
    shutil.copytree(BY_HAND, folder, ignore=ignored, dirs_exist_ok=True)
    return folder


def spec_by_hand() -> SourceSpec:
    return load_source_spec(SOURCE, BY_HAND)


_FLIGHTS_VIEWS = """
from datetime import timedelta

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.data_format import DeltaFormat
from feast.types import Float32

carrier = Entity(name="carrier", join_keys=["carrier"], value_type=ValueType.STRING)
carrier_delays = FeatureView(
    name="carrier_delays",
    entities=[carrier],
    ttl=timedelta(days=7),
    schema=[
        Field(name="carrier_delay_1d", dtype=Float32, tags={"default": "null"}),
        Field(name="carrier_delay_7d", dtype=Float32, tags={"default": "null"}),
        Field(name="carrier_delay_28d", dtype=Float32, tags={"default": "null"}),
    ],
    source=FileSource(
        name="carrier_delays", path="lake", timestamp_field="feature_timestamp", file_format=DeltaFormat()
    ),
)
"""


def write_flights_by_hand(folder: Path) -> None:
    """Turn the declared table carrier_delays of flights in `folder` into one that is written by hand."""
    path = folder / "flights.yaml"
    sql = declared_queries(load_source_spec("flights", folder))["carrier_delays"]
    fields = yaml.safe_load(path.read_text())
    # 28 days of window, 2 of label delay, and one for the closing row.
    fields["features"]["tables"]["carrier_delays"] = {"entity": "carrier", "history_days": 31}
    path.write_text(yaml.safe_dump(fields, sort_keys=False, width=1000))
    (folder / "flights.sql").write_text(f"-- The delays of each carrier.\n\n-- table: carrier_delays\n{sql}\n")
    (folder / "flights.py").write_text(_FLIGHTS_VIEWS)
