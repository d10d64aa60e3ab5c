"""Changes of a live model or source (docs/your-model.md, Changing a live model): every row of its tables has a test."""

import ast
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from serving.served_specs import ServedSpecs
from training.adapters.lake import PREDICTIONS, Lake
from training.contract.errors import ConfigError
from training.contract.model_spec import ModelSpec, load_model_spec
from training.domain.windows import windows
from training.settings import ROOT, Settings

PAGE = (ROOT / "docs" / "your-model.md").read_text()
HERE = "contract/test_live_changes.py"
IDS = "domain/test_identity.py::test_a_change_of_the_spec_changes_the_ids_of_what_it_decides"
SERVED = "serving/test_many_models.py"
FEEDS = "steps/test_ingest_odd_data.py"
TABLES = "steps/test_feature_definitions.py"
RECOMPUTED = f"{TABLES}::test_a_changed_definition_recomputes_all_days_whatever_was_asked_for"
#: First cell of a row → the tests in tests/ of what the row says. IDS shows what is made again, and what is not.
TESTS: dict[str, tuple[str, ...]] = {
    "`label`, or what its column means": (
        IDS,
        "steps/test_label_rule.py::test_reports_from_before_the_label_column_was_another_do_not_count",
    ),
    "`labels` of the source: one removed": (f"{HERE}::test_a_change_that_cannot_be_is_refused",),
    "`labels.<label>.delay_days` of the source": (
        IDS,
        f"{HERE}::test_a_longer_delay_ends_training_earlier_and_declared_tables_follow",
        "steps/test_typical_mistakes.py::test_a_mistake_gives_one_message",
    ),
    "`training.window_days`, `windows`, `holdout_days`, `after_change`, `seed`": (
        IDS,
        "steps/test_dataset.py::test_every_window_ends_with_the_usual_one_and_the_rows_of_all_are_there_once",
        "steps/test_dataset.py::test_without_the_section_a_change_changes_nothing",
        "steps/test_dataset.py::test_the_id_changes_with_all_that_determines_the_content",
        "steps/test_dataset.py::test_too_little_history_says_when_there_is_enough",
    ),
    "`training.estimators`": (IDS, f"{HERE}::test_a_change_that_takes_effect_is_accepted"),
    "`training.search`": (
        "steps/test_search.py::test_another_space_or_budget_is_another_fit_of_an_estimator_with_a_space",
    ),
    "`evaluation` (limits, margins, entity, k)": (IDS,),
    "`task.kind`": (
        "steps/test_task_kinds.py::test_a_champion_of_another_kind_stays_until_a_person_replaces_it",
        f"{SERVED}::test_a_spec_with_which_no_version_can_serve_waits_for_one_that_can",
    ),
    "`task.kind`, where the label does not suit it": (f"{HERE}::test_a_change_that_cannot_be_is_refused",),
    "`task.interval`, `task.reference`": (f"{HERE}::test_a_change_that_takes_effect_is_accepted",),
    "`evaluation.exclude_known_entities`": (IDS,),
    "`task.decision`": (IDS, f"{SERVED}::test_a_champion_keeps_its_decision_and_follows_the_key_of_the_groups"),
    "`monitoring`, `retraining`, `schedule`": (IDS, "dags/test_dags.py::test_a_changed_schedule_is_that_of_the_dag"),
    "`rollout`": (IDS, "steps/test_staged_rollout.py::test_a_retry_under_another_plan_goes_on_from_its_stage"),
    "`rollout.sticky_by`": (f"{SERVED}::test_a_champion_keeps_its_decision_and_follows_the_key_of_the_groups",),
    "`serving`": (f"{HERE}::test_a_model_moves_to_another_service_when_its_spec_names_it",),
    "`scoring`": (
        IDS,
        "dags/test_dags.py::test_scoring_follows_new_data_or_a_schedule_and_announces_predictions",
        "dags/test_dags.py::test_every_spec_has_its_dags",
    ),
    "`resources`": (IDS, "plugins/test_pod_spec.py::test_resources_become_requests_limits_and_a_place"),
    "`features` of a model": (IDS, "serving/test_versions.py::test_a_version_with_less_features"),
    "a second model of a source": (
        "steps/test_two_models.py::test_one_ingest_serves_both_and_each_is_trained_and_monitored",
        "dags/test_dags.py::test_two_models_of_a_source_share_its_data_and_each_is_monitored_when_it_has_landed",
    ),
    "`source` of a model": (
        f"{HERE}::test_a_model_on_another_source_has_another_prediction_log",
        "adapters/test_features.py::test_a_version_that_takes_an_event_column_which_the_service_does_not_know",
    ),
    "`name` of a source": (f"{HERE}::test_a_change_that_cannot_be_is_refused",),
    "`title`, `description`, `owner`": (
        IDS,
        f"{SERVED}::test_a_changed_spec_takes_effect_while_requests_are_answered",
    ),
    "`name` of a model": (f"{HERE}::test_a_renamed_model_is_another_one",),
    "the files are removed": (
        f"{HERE}::test_a_removed_model_has_no_spec_and_is_not_served",
        f"{SERVED}::test_a_model_whose_spec_is_removed_is_not_served_any_more",
    ),
    "column added": (f"{FEEDS}::test_a_column_added_renamed_and_taken_out",),
    "column removed": (f"{FEEDS}::test_a_column_added_renamed_and_taken_out",),
    "column renamed": (
        f"{FEEDS}::test_a_column_added_renamed_and_taken_out",
        f"{FEEDS}::test_names_equal_but_for_capitals_and_our_own_are_refused",
    ),
    "type `int64` → `float64`": (f"{FEEDS}::test_whole_numbers_widen_to_floats_and_the_rows_in_the_lake_stay",),
    "any other type": (f"{FEEDS}::test_any_other_change_of_a_type_is_refused_before_anything_is_written",),
    "rule (`minimum`, `maximum`, `values`, `unique`)": (f"{FEEDS}::test_changed_rules_are_for_later_deliveries",),
    "`nullable: false`": (f"{FEEDS}::test_a_column_that_may_no_longer_be_null_counts_for_new_rows",),
    "`nullable: true`": (f"{FEEDS}::test_a_column_that_may_be_null_from_now_on",),
    "`time_column`": (f"{FEEDS}::test_another_time_column_needs_the_rows_again",),
    "`row_count`, `maximum_quarantined`, `slack_days`, `maximum_gap_days`": (
        f"{FEEDS}::test_changed_rules_of_partitions_are_for_later_deliveries",
    ),
    "feature added (SQL and view)": (RECOMPUTED, "serving/test_versions.py::test_a_version_with_more_features"),
    "feature removed": (
        RECOMPUTED,
        "adapters/test_online_store.py::test_a_feature_that_was_removed_reads_as_its_default_and_is_flagged",
    ),
    "feature renamed": (RECOMPUTED,),
    "SQL changed under the same name, for example its window": (RECOMPUTED,),
    "type changed": (RECOMPUTED, f"{TABLES}::test_doubles_and_integers_reach_the_model_as_float32"),
    "`history_days` changed": (RECOMPUTED,),
    "`ttl` changed": (
        f"{TABLES}::test_what_changes_no_row_recomputes_none",
        "adapters/test_online_store.py::test_a_feature_row_counts_from_its_midnight_on_to_the_end_of_its_ttl",
    ),
    "entity of a table changed": (
        "adapters/test_online_store.py::test_another_entity_of_a_table_leaves_no_row_of_the_one_before",
    ),
    "table added (spec, SQL, view)": (f"{TABLES}::test_a_table_added_to_a_live_model_is_computed_for_all_days",),
    "table removed": (f"{TABLES}::test_a_table_that_is_removed_stays_as_it_is",),
    "order of the service changed": (
        f"{TABLES}::test_what_changes_no_row_recomputes_none",
        "steps/test_evaluate.py::test_a_champion_is_scored_with_its_own_features_by_name",
    ),
}
HEADS = ("you change", "change of a feed", "change")


def test_every_row_of_the_tables_has_tests_that_exist() -> None:
    section = PAGE.split("\n## Changing a live model\n")[1].split("\n## ")[0]
    rows = [line.split(" | ")[0].removeprefix("| ") for line in section.splitlines() if line.startswith("| ")]
    assert [row for row in rows if row not in HEADS] == list(TESTS)
    for name in sorted({name for names in TESTS.values() for name in names}):
        file, _, function = name.partition("::")
        tree = ast.parse((ROOT / "tests" / file).read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name


@pytest.fixture
def files(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "training" / "models", tmp_path / "models")
    shutil.copytree(ROOT / "feature_repo", tmp_path / "repo", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def edited(file: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))

    return change


def renamed_source(folder: Path) -> None:
    edited("repo/flights.yaml", "name: flights", "name: departures")(folder)
    (folder / "repo" / "flights.yaml").rename(folder / "repo" / "departures.yaml")


def flights(files: Path, model: str = "flight_delay") -> ModelSpec:
    return load_model_spec(model, files / "models", files / "repo")


@pytest.mark.parametrize(
    ("row", "change", "said"),
    [
        (
            "| `labels` of the source: one removed |",
            edited("repo/flights.yaml", "  outcome: {feed: labels, delay_days: 2}\n", ""),
            "origin_outcomes.label names 'outcome', which is not one of the labels",
        ),
        (
            "| `task.kind`, where the label does not suit it |",
            edited("models/flight_outcome.yaml", "kind: multiclass", "kind: regression"),
            "label names 'outcome', whose type is string, but the label of a regression must be a number",
        ),
        ("| `name` of a source |", renamed_source, "source names 'flights', but there is no spec at"),
    ],
)
def test_a_change_that_cannot_be_is_refused(files: Path, row: str, change: Callable[[Path], None], said: str) -> None:
    assert row in PAGE
    flights(files, "flight_outcome")
    change(files)
    with pytest.raises(ConfigError, match=said):
        flights(files, "flight_outcome")


@pytest.mark.parametrize(
    ("row", "old", "new"),
    [
        ("| `title`, `description`, `owner` |", "owner: network-planning", "owner: others"),
        ("| `training.estimators` |", "    linear_regression: {}\n", ""),
        ("| `serving` |", "source: flights\n", "source: flights\nserving: planning\n"),
        ("| `task.interval`, `task.reference` |", "  interval: {coverage: 0.9}\n", ""),
    ],
)
def test_a_change_that_takes_effect_is_accepted(files: Path, row: str, old: str, new: str) -> None:
    assert row in PAGE
    before = flights(files)
    edited("models/flight_delay.yaml", old, new)(files)
    after = flights(files)
    assert after != before
    assert after.source == before.source


def test_a_longer_delay_ends_training_earlier_and_declared_tables_follow(files: Path) -> None:
    def seen() -> tuple[date, date, dict[str, int]]:
        spec = flights(files)
        delay, training = spec.label_spec.delay_days, spec.training
        found = windows(date(2013, 6, 1), training.window_days, training.holdout_days, delay)
        tables = {
            name: table.days_of_history(spec.source.labels[table.label].delay_days)
            for name, table in spec.source.features.tables.items()
            if table.label and table.history_days is None
        }
        assert tables
        return found.holdout.end, found.train.end, tables

    holdout, train, tables = seen()
    for label in ("arrival_delay", "outcome"):
        edited(
            "repo/flights.yaml",
            f"{label}: {{feed: labels, delay_days: 2}}",
            f"{label}: {{feed: labels, delay_days: 5}}",
        )(files)
    later_holdout, later_train, later_tables = seen()
    assert ((holdout - later_holdout).days, (train - later_train).days) == (3, 6)
    assert later_tables == {name: days + 3 for name, days in tables.items()}


def test_a_model_on_another_source_has_another_prediction_log(files: Path) -> None:
    def log() -> str:
        spec = flights(files)
        return Lake(str(files / "lake"), spec.source.name, spec.name).uri(PREDICTIONS)

    before = log()
    text = (files / "repo" / "flights.yaml").read_text()
    (files / "repo" / "departures.yaml").write_text(
        text.replace("name: flights", "name: departures").replace("carrier_", "airline_").replace("origin_", "airport_")
    )
    edited("models/flight_delay.yaml", "source: flights\n", "source: departures\n")(files)
    assert log() == before.replace("flights", "departures") != before


def test_a_renamed_model_is_another_one(files: Path) -> None:
    specs = served(files)
    assert specs.read()
    edited("models/flight_delay.yaml", "name: flight_delay", "name: lateness")(files)
    assert specs.read()
    assert "'lateness'" in specs.broken["flight_delay"]
    assert "flight_delay" in specs.good, "its last good spec, until the file is renamed too"
    (files / "models" / "flight_delay.yaml").rename(files / "models" / "lateness.yaml")
    assert specs.read()
    assert sorted(specs.good) == ["card_fraud", "flight_outcome", "lateness"]
    assert not specs.broken


def test_a_removed_model_has_no_spec_and_is_not_served(files: Path) -> None:
    specs = served(files)
    assert specs.read()
    (files / "models" / "flight_delay.yaml").unlink()
    with pytest.raises(ConfigError, match="No spec for model"):
        flights(files)
    assert specs.read()
    assert sorted(specs.good) == ["card_fraud", "flight_outcome"]
    assert not specs.broken


def served(files: Path, **fields: Any) -> ServedSpecs:
    settings = Settings(models_dir=files / "models", feature_repo=files / "repo", home=files / "home", **fields)
    return ServedSpecs(settings)


def test_a_folder_of_specs_that_is_away_removes_no_model(files: Path) -> None:
    settings = Settings(models_dir=files / "models", feature_repo=files / "repo", home=files / "home")
    specs = ServedSpecs(settings)
    assert specs.read()
    served = sorted(specs.good)
    (files / "models").rename(files / "away")
    with pytest.raises(ConfigError, match="no folder"):
        specs.read()
    assert sorted(specs.good) == served != []
    (files / "away").rename(files / "models")
    assert not specs.read()
    with pytest.raises(ConfigError, match="no folder"):
        ServedSpecs(settings.model_copy(update={"models_dir": files / "nowhere"})).read()


def test_a_model_moves_to_another_service_when_its_spec_names_it(files: Path) -> None:
    default, planning = served(files), served(files, serving_name="planning")
    assert default.read()
    assert not planning.read()
    assert "flight_delay" in default.good
    edited("models/flight_delay.yaml", "source: flights\n", "source: flights\nserving: planning\n")(files)
    assert default.read()
    assert planning.read()
    assert sorted(default.good) == ["card_fraud", "flight_outcome"]
    assert sorted(planning.good) == ["flight_delay"]
