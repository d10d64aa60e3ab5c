"""The features step when the definitions change under it: what is recomputed, and what is refused."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.cases import others_in_ci, others_long
from tests.feature_repo.payments_and_features import MODEL, SOURCE, compute, day, payments, put, rows_of
from tests.feature_repo.written_by_hand import copy_by_hand
from training.adapters.lake import Lake
from training.contract.base import Days
from training.contract.errors import ConfigError, DataContractError, TransientError
from training.contract.messages import FeaturesInputs, FeaturesResult
from training.settings import Settings
from training.steps import features

COUNT = "    coalesce(sum(n) FILTER (WHERE age <= 7), 0)::FLOAT AS customer_count_7d,\n"
FIELD = '        Field(name="customer_count_7d", dtype=Float32, description="… in the 7 days"),\n'


class Repo:
    """A copy of the reference source's files, to be edited."""

    def __init__(self, folder: Path) -> None:
        copy_by_hand(folder / "repo")
        self.settings = Settings(home=folder / "home", feature_repo=folder / "repo")

    def edit(self, ending: str, old: str, new: str, count: int = -1) -> None:
        path = self.settings.feature_repo / f"{SOURCE}.{ending}"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, count))

    def rows(self) -> pd.DataFrame:
        return rows_of(self.settings, "customer_features")

    def run(self, days: Days | None) -> FeaturesResult:
        versions = Lake(self.settings.lake, SOURCE, MODEL).versions("events", "labels")
        return features.run(FeaturesInputs(source=SOURCE, days=days, table_versions=versions), self.settings)

    def one_day(self) -> FeaturesResult:
        return self.run(Days(start=day(10), end=day(11)))


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state with the features of all days, to be copied."""
    found = Repo(tmp_path_factory.mktemp("computed"))
    put(found.settings, *payments(10))
    compute(found.settings, 0, 11)
    return found.settings.home


@pytest.fixture
def repo(computed: Path, tmp_path: Path) -> Repo:
    shutil.copytree(computed, tmp_path / "home")
    return Repo(tmp_path)


def add(repo: Repo) -> None:
    repo.edit("sql", COUNT, COUNT + COUNT.replace("7", "3"))
    repo.edit("py", FIELD, FIELD + FIELD.replace("7", "3"))


def remove(repo: Repo) -> None:
    repo.edit("sql", COUNT, "")
    repo.edit("py", FIELD, "")


def rename(repo: Repo) -> None:
    repo.edit("sql", "customer_count_7d", "customer_count_week")
    repo.edit("py", "customer_count_7d", "customer_count_week")


def retype(repo: Repo) -> None:
    repo.edit("sql", COUNT, COUNT.replace("FLOAT", "BIGINT"))
    repo.edit("py", FIELD, FIELD.replace("Float32", "Int64"))
    repo.edit("py", "import Float32,", "import Float32, Int64,")


def another_window(repo: Repo) -> None:
    repo.edit("sql", COUNT, COUNT.replace("age <= 7", "age <= 2"))


def look_further_back(repo: Repo) -> None:
    repo.edit("yaml", "history_days: 3", "history_days: 4")


@pytest.mark.parametrize(
    ("change", "said"),
    others_long(
        [
            (rename, "customer_count_week added, customer_count_7d removed"),
            pytest.param(
                another_window,
                "the SQL, history_days or a feed begun anew, not the columns",
                marks=pytest.mark.ci,
            ),
            (look_further_back, "the SQL, history_days or a feed begun anew, not the columns"),
            (retype, "customer_count_7d float → int64"),
            (add, "customer_count_3d added"),
            (remove, "customer_count_7d removed"),
        ],
        first=2,
    ),
)
def test_a_changed_definition_recomputes_all_days_whatever_was_asked_for(
    repo: Repo, change, said: str, caplog: pytest.LogCaptureFixture, tmp_path_factory: pytest.TempPathFactory
) -> None:
    change(repo)
    with caplog.at_level(logging.WARNING):
        result = repo.one_day()
    assert f"The definition of customer_features has changed ({said}): recomputing all its days" in caplog.text
    assert "2026-01-02 … 2026-01-11" in caplog.text
    fresh = Repo(tmp_path_factory.mktemp("fresh"))
    change(fresh)
    put(fresh.settings, *payments(10))
    compute(fresh.settings, 0, 11)
    pd.testing.assert_frame_equal(repo.rows(), fresh.rows())
    assert result.rows["customer_features"] == len(repo.rows())
    # Once: the next run writes the days that it is asked for.
    assert repo.one_day().rows["customer_features"] == 6


def test_the_other_table_is_not_recomputed(repo: Repo) -> None:
    another_window(repo)
    result = repo.one_day()
    assert result.rows["terminal_features"] == 6
    assert result.rows["customer_features"] == len(repo.rows())


def test_comments_and_white_space_are_no_change(repo: Repo) -> None:
    repo.edit(
        "sql",
        "WITH daily AS (\n    SELECT customer_id,",
        "/* again */ WITH daily\nAS( -- by day\n SELECT customer_id ,",
    )
    assert repo.one_day().rows["customer_features"] == 6


def another_ttl(repo: Repo) -> None:
    repo.edit("py", "TTL = timedelta(days=7)", "TTL = timedelta(days=3)")


def another_order(repo: Repo) -> None:
    field = FIELD.replace("customer_count_7d", "customer_count_1d").replace(
        "… in the 7 days", "Payments in the day before midnight"
    )
    repo.edit("py", field + FIELD, FIELD + field)


@pytest.mark.parametrize("change", others_long([another_ttl, another_order]))
def test_what_changes_no_row_recomputes_none(repo: Repo, change: Callable[[Repo], None]) -> None:
    before = repo.rows()
    change(repo)
    assert repo.one_day().rows == {"customer_features": 6, "terminal_features": 6}
    pd.testing.assert_frame_equal(repo.rows(), before)


def test_a_table_that_is_removed_stays_as_it_is(repo: Repo) -> None:
    held = Lake(repo.settings.lake, SOURCE, MODEL).versions("terminal_features")
    repo.edit("yaml", "    terminal_features: {entity: terminal_id, history_days: 38}\n", "")
    for ending, start in (("sql", "-- table: terminal_features"), ("py", "terminal_features = FeatureView(")):
        path = repo.settings.feature_repo / f"{SOURCE}.{ending}"
        path.write_text(path.read_text().split(start)[0])
    assert repo.one_day().rows == {"customer_features": 6}
    assert Lake(repo.settings.lake, SOURCE, MODEL).versions("terminal_features") == held


def test_without_days_a_changed_table_is_recomputed_and_all_versions_are_named(repo: Repo) -> None:
    another_window(repo)
    result = repo.run(None)
    assert result.rows == {"customer_features": len(repo.rows()), "terminal_features": 0}
    assert result.table_versions == Lake(repo.settings.lake, SOURCE, MODEL).versions(
        "events", "labels", "customer_features", "terminal_features"
    )
    again = repo.run(None)
    assert (again.rows, again.table_versions) == (dict.fromkeys(result.rows, 0), result.table_versions)


def test_a_table_of_before_the_numbers_is_recomputed(repo: Repo) -> None:
    lake = Lake(repo.settings.lake, SOURCE, MODEL)
    rows = lake.scan("customer_features").to_table()
    shutil.rmtree(lake.uri("customer_features"))
    lake.replace("customer_features", rows, "true", ["day"])
    assert repo.one_day().rows["customer_features"] == rows.num_rows


def test_an_earlier_version_keeps_its_columns_and_meaning(repo: Repo) -> None:
    version = Lake(repo.settings.lake, SOURCE, MODEL).versions("customer_features")["customer_features"]
    before = rows_of(repo.settings, "customer_features", version)
    rename(repo)
    repo.one_day()
    pd.testing.assert_frame_equal(rows_of(repo.settings, "customer_features", version), before)


@pytest.mark.long
def test_many_days_are_computed_in_chunks_with_the_same_result(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    want = repo.rows()
    monkeypatch.setattr(features, "CHUNK_DAYS", 3)
    look_further_back(repo)
    repo.one_day()
    pd.testing.assert_frame_equal(repo.rows(), want)


@pytest.mark.parametrize("table", others_long(["terminal_features", "customer_features"]))
def test_a_recomputation_that_was_killed_is_done_by_the_next(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    before, overwrite = repo.rows(), Lake.overwrite
    repo.edit("sql", "::FLOAT", "::DOUBLE")

    def refuse(self: Lake, name: str, *args: object, **kwargs: object) -> int:
        if name == table:
            raise TransientError("killed")
        return overwrite(self, name, *args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Lake, "overwrite", refuse)
        with pytest.raises(TransientError):
            repo.one_day()
    repo.one_day()
    for name in ("customer_features", "terminal_features"):
        rows = rows_of(repo.settings, name)
        assert {str(kind) for kind in rows.dtypes} == {"int64", "float64", "object", "datetime64[us, UTC]"}
        assert len(rows) == len(before)


def test_a_table_added_to_a_live_model_is_computed_for_all_days(repo: Repo) -> None:
    repo.edit(
        "yaml",
        "  tables:\n",
        "  tables:\n    customer_days: {entity: customer_id, history_days: 1}\n",
    )
    section = """
-- table: customer_days
SELECT customer_id, CAST(event_time AS DATE) + 1 AS day, count(*)::FLOAT AS customer_payments
FROM events WHERE CAST(event_time AS DATE) + 1 >= $start AND CAST(event_time AS DATE) + 1 < $end GROUP BY ALL
"""
    repo.edit("sql", "\n-- table: customer_features", f"{section}\n-- table: customer_features")
    repo.edit(
        "py",
        "terminal_features = FeatureView(",
        """customer_days = FeatureView(
    name="customer_days", entities=[customer], ttl=TTL, source=_source("customer_days"),
    schema=[Field(name="customer_payments", dtype=Float32)],
)
terminal_features = FeatureView(""",
    )
    result = repo.one_day()
    rows = rows_of(repo.settings, "customer_days")
    assert result.rows == {"customer_features": 6, "terminal_features": 6, "customer_days": len(rows)}
    assert set(rows["day"]) == {day(n) for n in range(1, 11)}


def test_days_that_a_corrected_partition_has_no_more_lose_their_rows(repo: Repo) -> None:
    events, labels = payments(10)
    put(repo.settings, events[events["event_time"].dt.date < day(8)], labels)
    result = repo.run(Days(start=day(9), end=day(47)))
    assert result.rows["customer_features"] == 0
    assert repo.rows()["day"].max() == day(8)


def test_events_without_entity_make_no_feature_row(repo: Repo) -> None:
    events, labels = payments(10)
    nobody = events.assign(customer_id=events["customer_id"].astype("Int64").mask(events.index % 3 == 0))
    put(repo.settings, nobody, labels)
    compute(repo.settings, 0, 11)
    rows = repo.rows()
    assert rows["customer_id"].notna().all()
    known = events[(events.index % 3 != 0) & (events["event_time"].dt.date == day(9))]
    assert rows[rows["day"] == day(10)]["customer_count_1d"].sum() == len(known)


SUM = "coalesce(sum(total) FILTER (WHERE age <= 1) / sum(n) FILTER (WHERE age <= 1), 0)::FLOAT AS customer_mean_1d"


@pytest.mark.parametrize(
    ("ending", "old", "new", "error", "said"),
    others_in_ci(
        [
            (
                "sql",
                "customer_count_7d",
                "customer_count_week",
                ConfigError,
                r"yields \['customer_count_week'\], which the feature view",
            ),
            ("py", FIELD, "", ConfigError, r"yields \['customer_count_7d'\], which the feature view"),
            (
                "sql",
                COUNT,
                "",
                ConfigError,
                r"has \['customer_count_7d'\], which its query in .*card_payments\.sql does not yield",
            ),
            (
                "py",
                FIELD,
                FIELD.replace("Float32", "Int64"),
                ConfigError,
                r"customer_count_7d \(float in the SQL, Int64 in the view\)",
            ),
            ("py", FIELD, FIELD.replace("Float32", "String"), ConfigError, "customer_count_7d.*String"),
            ("sql", COUNT, COUNT.replace("::FLOAT", ""), ConfigError, r"customer_count_7d \(decimal128"),
            (
                "sql",
                COUNT,
                COUNT.replace("::FLOAT", "::VARCHAR"),
                ConfigError,
                r"customer_count_7d \(string in the SQL",
            ),
            (
                "py",
                'value_type=ValueType.INT64, description="The card',
                'value_type=ValueType.STRING, description="The card',
                ConfigError,
                "'customer_id'.*int64.*'customer' as STRING",
            ),
            (
                "sql",
                "GROUP BY customer_id, day",
                "GROUP BY customer_id, day, age",
                ConfigError,
                r"customer_id \d+ on \d{4}-\d\d-\d\d \d+ times",
            ),
            (
                "sql",
                "paid_on + age >= $start AND paid_on + age < $end",
                "paid_on + age >= $start AND paid_on + age <= $end",
                ConfigError,
                "yielded rows of .* for the days",
            ),
            (
                "sql",
                "WHERE paid_on + age >= $start AND paid_on + age < $end",
                "",
                ConfigError,
                r"does not use \['\$end', '\$start'\]",
            ),
            (
                "sql",
                "    day,\n    coalesce(sum(n)",
                "    day::TIMESTAMP AS day,\n    coalesce(sum(n)",
                ConfigError,
                "`day` as timestamp",
            ),
            (
                "sql",
                SUM,
                "'NaN'::FLOAT AS customer_mean_1d",
                DataContractError,
                r"NaN, Infinity .* in \['customer_mean_1d'\]",
            ),
            (
                "sql",
                SUM,
                "'-Infinity'::FLOAT AS customer_mean_1d",
                DataContractError,
                r"NaN, Infinity .* in \['customer_mean_1d'\]",
            ),
            (
                "sql",
                SUM,
                "1e300::DOUBLE AS customer_mean_1d",
                DataContractError,
                r"beyond the range of FLOAT in \['customer_mean_1d'\]",
            ),
            ("sql", SUM, "NULL::FLOAT AS customer_mean_1d", DataContractError, r"nulls in \['customer_mean_1d'\]"),
            (
                "sql",
                "-- table: terminal_features",
                "-- table: customer_features",
                ConfigError,
                "only one query can fill a table",
            ),
            (
                "py",
                'name="terminal_count_1d"',
                'name="customer_count_1d"',
                ConfigError,
                r"\['customer_count_1d'\] twice",
            ),
        ],
        every=3,
    ),
)
def test_what_does_not_fit_together_is_named_and_nothing_is_written(
    repo: Repo, ending: str, old: str, new: str, error: type[Exception], said: str
) -> None:
    versions = Lake(repo.settings.lake, SOURCE, MODEL).versions("customer_features", "terminal_features")
    if "Int64" in new or "String" in new:
        repo.edit("py", "import Float32,", "import Float32, Int64, String,")
    repo.edit(ending, old, new, 1)
    with pytest.raises(error, match=said):
        repo.one_day()
    assert Lake(repo.settings.lake, SOURCE, MODEL).versions("customer_features", "terminal_features") == versions


def test_a_service_that_takes_what_no_view_of_the_file_makes_is_refused(repo: Repo) -> None:
    other = """
def _other():
    return FeatureView(name="others", entities=[customer], ttl=TTL, source=_source("others"),
                       schema=[Field(name="of_nobody", dtype=Float32)])

"""
    repo.edit("py", "import Entity, FeatureView,", "import Entity, FeatureService, FeatureView,")
    service = 'some = FeatureService(name="some", features=[customer_features, _other()])'
    repo.edit("py", "payment = RequestSource(", f"{other}{service}\npayment = RequestSource(")
    with pytest.raises(ConfigError, match=r"\['of_nobody'\] of 'others', which no view in this file defines"):
        repo.one_day()


def test_doubles_and_integers_reach_the_model_as_float32(repo: Repo) -> None:
    repo.edit("sql", COUNT, COUNT.replace("FLOAT", "INTEGER"))
    repo.edit("sql", SUM, SUM.replace("FLOAT", "DOUBLE"))
    repo.one_day()
    assert repo.rows()["customer_count_7d"].dtype == np.int32
    assert repo.rows()["customer_mean_1d"].dtype == np.float64


@pytest.mark.parametrize("feed", others_in_ci(["events", "labels"]))
def test_a_feed_begun_anew_gives_all_its_days_anew(repo: Repo, feed: str) -> None:
    events, labels = payments(10)
    put(repo.settings, events, labels)  # Later versions than those that the new table will have.
    repo.one_day()
    shutil.rmtree(Path(repo.settings.lake, SOURCE, feed))
    if feed == "events":
        events = events[events["event_time"].dt.date < day(8)]
    else:
        labels = labels[labels["transaction_id"] % 2 == 0]
    put(repo.settings, events, labels)
    repo.one_day()
    found = repo.rows()
    repo.run(Days(start=day(0), end=day(12)))
    pd.testing.assert_frame_equal(found, repo.rows())
    assert max(found["day"]) == (day(8) if feed == "events" else day(10))
