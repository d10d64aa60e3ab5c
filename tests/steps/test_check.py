"""The check: each mistake in the files of a source or model is found before anything runs, with file and remedy."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cases import others_in_ci
from tests.feature_repo.written_by_hand import copy_by_hand
from training import check as make_check
from training.adapters.features.definitions import load_definitions
from training.contract.errors import ConfigError, ExitCode
from training.contract.messages import CheckInputs
from training.contract.model_spec import load_model_spec
from training.settings import ROOT, Settings
from training.steps import check

SOURCE, MODEL = "card_payments", "card_fraud"
#: Functions that divide by zero say so; Feast calls on-demand views experimental.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
SPEC, SPEC_OF_SOURCE = f"models/{MODEL}.yaml", f"repo/{SOURCE}.yaml"
SQL, FEAST = f"repo/{SOURCE}.sql", f"repo/{SOURCE}.py"

#: An on-demand view with one field; {} is the body of its function.
REQUEST = """
@on_demand_feature_view(name="extra", sources=[payment], schema=[Field(name="extra_amount", dtype=Float32)])
def extra(inputs: pd.DataFrame) -> pd.DataFrame:
    amount = np.asarray(inputs["amount"], np.float64)
    {}
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A copy of the files of card_fraud and its source."""
    (tmp_path / "models").mkdir()
    shutil.copy(ROOT / "training" / "models" / f"{MODEL}.yaml", tmp_path / "models")
    copy_by_hand(tmp_path / "repo")
    return tmp_path


def settings_of(files: Path) -> Settings:
    return Settings(home=files / "home", models_dir=files / "models", feature_repo=files / "repo")


def found(files: Path) -> list[str]:
    """File (relative), place and sentence of each problem."""
    settings = settings_of(files)
    problems = [*check.find_source_problems(SOURCE, settings), *check.find_model_problems(MODEL, settings)]
    assert all(problem.fix for problem in problems)
    return [f"{Path(problem.file).relative_to(files)}: {problem}" for problem in problems]


def replaced(file: str, *pairs: tuple[str, str]) -> Callable[[Path], None]:
    def change(files: Path) -> None:
        text = (files / file).read_text()
        for old, new in pairs:
            assert old in text, old
            text = text.replace(old, new)
        (files / file).write_text(text)

    return change


def added(file: str, text: str) -> Callable[[Path], None]:
    return lambda files: (files / file).open("a").write(text)  # type: ignore[return-value]


def respecified(file: str, **sections: object) -> Callable[[Path], None]:
    def change(files: Path) -> None:
        spec = yaml.safe_load((files / file).read_text())
        (files / file).write_text(yaml.safe_dump(spec | sections, sort_keys=False))

    return change


def renamed(old: str, new: str) -> Callable[[Path], None]:
    """A feature, in SQL and view."""

    def change(files: Path) -> None:
        replaced(SQL, (old, new))(files)
        replaced(FEAST, (old, new))(files)

    return change


def copied_source(files: Path, name: str) -> None:
    """Another source with the same views."""
    for ending in ("yaml", "sql", "py"):
        text = (files / "repo" / f"{SOURCE}.{ending}").read_text()
        (files / "repo" / f"{name}.{ending}").write_text(text.replace(f"name: {SOURCE}", f"name: {name}"))


def tables(entity: str = "customer_id", **history_days: int) -> dict:
    """The section `features` of the source, changed."""
    days = {"customer_features": 31, "terminal_features": 38} | history_days
    entities = {"customer_features": entity, "terminal_features": "terminal_id"}
    return {"tables": {name: {"entity": entities[name], "history_days": days[name]} for name in entities}}


def request(body: str) -> Callable[[Path], None]:
    return added(FEAST, REQUEST.format(body))


#: The last label of all for all time since the first.
KNOWN = (
    "SELECT transaction_id, arg_max(is_fraud, reported_at) AS is_fraud, min(reported_on) AS reported_on,"
    " DATE 'infinity' AS"
)
CUSTOMER = "FROM spread\nGROUP BY customer_id, day"

MISTAKES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    # The spec.
    "text labels": (
        replaced(
            SPEC_OF_SOURCE,
            ("is_fraud: {type: int64, values: [0, 1]", "is_fraud: {type: string, values: [fraud, legit]"),
        ),
        SPEC,
        "label names 'is_fraud', whose type is string, but the label of a binary task must be an integer",
    ),
    "a parameter that the estimator does not have": (
        replaced(SPEC, ("logistic_regression: {}", "logistic_regression: {penalty: l1}")),
        SPEC,
        "training.estimators.logistic_regression has no parameter penalty",
    ),
    "a parameter of another kind": (
        replaced(SPEC, ("logistic_regression: {}", "logistic_regression: {max_iter: many}")),
        SPEC,
        "training.estimators.logistic_regression.max_iter is 'many', but the default is 1000",
    ),
    "an estimator of another package that is not there": (
        replaced(SPEC, ("logistic_regression: {}", "absent_models:best: {}")),
        SPEC,
        "training.estimators.absent_models:best: The estimator 'absent_models:best' cannot be imported: No module",
    ),
    "an estimator that cannot be exported": (
        replaced(SPEC, ("logistic_regression: {}", "sklearn.semi_supervised:LabelSpreading: {}")),
        SPEC,
        "fails on made rows: LabelSpreading cannot be exported to ONNX: Unable to find",
    ),
    # The SQL.
    "no SQL": (lambda files: (files / SQL).unlink(), SQL, "No feature queries"),
    "a table that no query fills": (replaced(SQL, ("-- table: terminal_", "-- table: shop_")), SQL, "shop_features"),
    "a table twice": (
        added(SQL, "\n-- table: customer_features\nSELECT 1"),
        SQL,
        "has a line `-- table: customer_features` twice",
    ),
    "SQL that does not parse": (replaced(SQL, (CUSTOMER, "FORM spread")), SQL, "customer_features: Query"),
    "a column that is not there": (replaced(SQL, ("sum(CAST(amount", "sum(CAST(price")), SQL, "price"),
    "another entity": (
        respecified(SPEC_OF_SOURCE, features=tables(entity="terminal_id")),
        SQL,
        "'customer_mean_30d'], without 'terminal_id'",
    ),
    "an entity of another type": (
        replaced(
            SQL, ("SELECT\n    customer_id,\n    day,", "SELECT\n    customer_id::INTEGER AS customer_id,\n    day,")
        ),
        SQL,
        "customer_features yields customer_id as int32, but events have it as int64",
    ),
    "SQL that reads the same day": (
        replaced(SQL, ("range(1, 32)", "range(0, 32)")),
        SQL,
        "customer_features uses events of the day itself or later",
    ),
    "SQL that reads labels before they are reported": (
        replaced(SQL, ("CASE WHEN reported_on < paid_on + age AND paid_on + age <= corrected_on", "CASE WHEN 1 = 1")),
        SQL,
        "terminal_features uses labels that were not yet reported",
    ),
    "SQL that takes a correction for known": (
        replaced(
            SQL,
            ("SELECT transaction_id, is_fraud, reported_on, lead(reported_on, 1, 'infinity') OVER reports AS", KNOWN),
            ("    WINDOW reports AS (PARTITION BY transaction_id ORDER BY reported_at, is_fraud)", "GROUP BY ALL"),
        ),
        SQL,
        "terminal_features uses labels that were not yet reported",
    ),
    "two rows of an entity and a day": (
        replaced(SQL, ("GROUP BY customer_id, day", "GROUP BY customer_id, day, age")),
        SQL,
        "customer_features: Query 'customer_features' yielded customer_id",
    ),
    "a history that is too short": (
        respecified(SPEC_OF_SOURCE, features=tables(customer_features=20)),
        SQL,
        "customer_features uses events or labels from more than its history_days (20) ago",
    ),
    "a history without the closing day": (
        respecified(SPEC_OF_SOURCE, features=tables(terminal_features=37)),
        SQL,
        "terminal_features uses events or labels from more than its history_days (37) ago",
    ),
    "a feature of text": (
        replaced(SQL, ("::FLOAT AS customer_count_1d", "::VARCHAR AS customer_count_1d")),
        FEAST,
        "disagree on the types in 'customer_features': customer_count_1d (string in the SQL, Float32 in the view)",
    ),
    "a feature that may be null": (
        replaced(
            SQL, ("coalesce(sum(n) FILTER (WHERE age <= 1), 0)::FLOAT", "(sum(n) FILTER (WHERE age <= 1))::FLOAT")
        ),
        SQL,
        "yielded nulls in ['customer_count_1d']",
    ),
    "a division by zero": (
        replaced(SQL, ("sum(n) FILTER (WHERE age <= 1), 0)::FLOAT", "1.0 / (sum(n) - sum(n))::DOUBLE, 0)::FLOAT")),
        SQL,
        "yielded NaN, Infinity or numbers beyond the range of FLOAT in ['customer_count_1d'",
    ),
    "windows that hang on $start": (
        replaced(
            SQL,
            (
                "WHERE age <= 1), 0)::FLOAT AS customer_count_1d",
                "WHERE day - $start < 2), 0)::FLOAT AS customer_count_1d",
            ),
        ),
        SQL,
        "customer_features yields different rows for one day than for several days",
    ),
    "a random feature": (
        replaced(SQL, ("coalesce(sum(n) FILTER (WHERE age <= 1), 0)::FLOAT", "random()::FLOAT")),
        SQL,
        "customer_features yields other rows when it runs again",
    ),
    "a sample of the rows": (
        replaced(
            SQL,
            ("    FROM events\n    GROUP BY", "    FROM (SELECT * FROM events using /**/ sample 99%)\n    GROUP BY"),
        ),
        SQL,
        "customer_features depends on chance: it uses USING SAMPLE or TABLESAMPLE",
    ),
    "a request function that reads the clock": (
        replaced(FEAST, ("    amount = np.asarray(", "    pd.Timestamp.now()\n    amount = np.asarray(")),
        FEAST,
        "on-demand view request_features depends on the current time: line",
    ),
    "a feature that depends on the day of the computation": (
        replaced(SQL, ("coalesce(sum(n) FILTER (WHERE age <= 1), 0)::FLOAT", "(current_date - day)::FLOAT")),
        SQL,
        "customer_features depends on the current time: it uses current_date",
    ),
    "a filter on the time of the computation": (
        replaced(
            SQL,
            ("WHERE paid_on + age >= $start", "WHERE paid_on < today() AND NOW() > day AND paid_on + age >= $start"),
        ),
        SQL,
        "customer_features depends on the current time: it uses now(), today()",
    ),
    "rows of days that nobody asked for": (
        replaced(
            SQL,
            (
                "paid_on + age >= $start AND paid_on + age < $end",
                "paid_on + age >= $start AND paid_on + age <= $end",
            ),
        ),
        SQL,
        "for the days",
    ),
    "a day that is a timestamp": (
        replaced(SQL, ("    day,\n    coalesce(sum(n)", "    day::TIMESTAMP AS day,\n    coalesce(sum(n)")),
        SQL,
        "yields `day` as timestamp",
    ),
    "a query that does not take $start": (
        replaced(SQL, ("WHERE paid_on + age >= $start AND paid_on + age < $end", "")),
        SQL,
        "does not use ['$end', '$start']",
    ),
    # SQL and Feast.
    "a column of the SQL that no view declares": (
        replaced(
            FEAST,
            (
                '        Field(name="customer_count_1d", dtype=Float32, '
                'description="Payments in the day before midnight"),\n',
                "",
            ),
        ),
        FEAST,
        "yields ['customer_count_1d'], which the feature view",
    ),
    "a column of the SQL that no model uses": (
        respecified(SPEC, features=["terminal_count_1d", "payment_amount"]),
        FEAST,
        "the feature services of card_fraud do not have terminal_count_7d, which the SQL yields",
    ),
    "a feature in the service that no query makes": (
        replaced(
            FEAST,
            (
                '    schema=[\n        Field(name="customer_count_1d"',
                '    schema=[\n        Field(name="customer_age", dtype=Float32),\n'
                '        Field(name="customer_count_1d"',
            ),
        ),
        FEAST,
        "has ['customer_age'], which its query in",
    ),
    "a type that cuts values": (
        replaced(
            FEAST,
            ('name="customer_mean_1d", dtype=Float32', 'name="customer_mean_1d", dtype=Int64'),
            ("import Float32,", "import Int64, Float32,"),
        ),
        FEAST,
        "customer_mean_1d (float in the SQL, Int64 in the view)",
    ),
    # Feast.
    "no definitions": (lambda files: (files / FEAST).unlink(), FEAST, "does not exist, but the tables"),
    "definitions that do not run": (replaced(FEAST, ("TTL = ", "TTL = days + ")), FEAST, "NameError"),
    "a view without a ttl": (replaced(FEAST, ("    ttl=TTL,\n", "")), FEAST, "have no ttl"),
    "another service": (
        respecified(SPEC, features={"service": "fraud"}),
        SPEC,
        "defines no feature service 'fraud', only []",
    ),
    "a feature that the source does not have": (
        respecified(SPEC, features=["customer_count_1d", "customer_count_2d"]),
        SPEC,
        "names the features ['customer_count_2d'], which the source does not have",
    ),
    "a service with the name of the model": (
        added(
            FEAST,
            "\nfrom feast import FeatureService\n"
            'mine = FeatureService(name="card_fraud", features=[customer_features])\n',
        ),
        SPEC,
        "defines a feature service 'card_fraud', but the service of model card_fraud is generated",
    ),
    "an entity of text": (
        replaced(
            FEAST,
            (
                'join_keys=["customer_id"], value_type=ValueType.INT64',
                'join_keys=["customer_id"], value_type=ValueType.STRING',
            ),
        ),
        FEAST,
        "defines the entity 'customer' as STRING",
    ),
    "another timestamp": (
        replaced(FEAST, ('timestamp_field="feature_timestamp"', 'timestamp_field="day"')),
        FEAST,
        "view customer_features has the timestamp_field 'day' in its source",
    ),
    "a feature that is called like a column": (
        replaced(FEAST, ('"payment_amount"', '"terminal_id"')),
        FEAST,
        "feature views have the feature terminal_id, but a dataset already has another column of this name",
    ),
    "a feature of a name that Feast's join drops": (
        renamed("customer_count_1d", "customer_count_y"),
        FEAST,
        "define the feature customer_count_y, a name that Feast uses",
    ),
    "a view that another source has": (
        lambda files: copied_source(files, "card_payments_2"),
        "repo/card_payments_2.py",
        "Sources 'card_payments' and 'card_payments_2' both define feature view 'customer_features'",
    ),
    # The request features.
    "a request column that events do not have": (
        replaced(FEAST, ('Field(name="amount", dtype=Float64)', 'Field(name="price", dtype=Float64)')),
        FEAST,
        "takes 'price' of a request, which is not one of the columns",
    ),
    "a request column of another type": (
        replaced(FEAST, ('Field(name="amount", dtype=Float64)', 'Field(name="amount", dtype=UnixTimestamp)')),
        FEAST,
        "takes amount as UnixTimestamp, but the column is float64",
    ),
    "a function that reads what it does not take": (
        request("return type(inputs)({'extra_amount': amount + inputs['customer_id']})"),
        FEAST,
        "on-demand view extra reads the column 'customer_id', which is not among its inputs",
    ),
    "a function that wants a DataFrame": (
        request("return pd.DataFrame({'extra_amount': inputs.amount})"),
        FEAST,
        "on-demand view extra fails on the arrays of a prediction: AttributeError",
    ),
    "a function that returns another feature": (
        request("return type(inputs)({'extra': amount})"),
        FEAST,
        "on-demand view extra does not return extra_amount, which its schema declares",
    ),
    "a function that returns one number": (
        request("return type(inputs)({'extra_amount': amount[:1]})"),
        FEAST,
        "on-demand view extra returns extra_amount of shape (1,) for 64 rows",
    ),
    "a function that returns text": (
        request("return type(inputs)({'extra_amount': np.full(len(amount), 'much')})"),
        FEAST,
        "on-demand view extra returns extra_amount that is not a number",
    ),
    "a function that divides by zero": (
        request("return type(inputs)({'extra_amount': np.divide(1.0, amount)})"),
        FEAST,
        "on-demand view extra gives extra_amount as inf for",
    ),
    "a function that looks at other rows": (
        request("return type(inputs)({'extra_amount': amount - amount.mean()})"),
        FEAST,
        "on-demand view extra gives different values of extra_amount for a row alone",
    ),
    "a function that differs in Feast": (
        request("return type(inputs)({'extra_amount': amount * isinstance(inputs, dict)})"),
        FEAST,
        "gives different values of extra_amount for a DataFrame (Feast) and for arrays (training, serving)",
    ),
}


def _often(names: Iterable[str]) -> list[Any]:
    """One of four at each landing, and two of all at each `make test`, beside the five that are found at once."""
    return [
        name if number % 32 == 8 else pytest.param(name, marks=pytest.mark.long if number % 4 else pytest.mark.ci)
        for number, name in enumerate(names)
    ]


@pytest.mark.parametrize("whole", others_in_ci([False, True]))
def test_the_reference_model_has_none(files: Path, whole: bool) -> None:
    if whole:
        shutil.copy(ROOT / "training" / "models" / f"{MODEL}.yaml", files / "models")
    assert found(files) == []


@pytest.mark.parametrize("name", _often(MISTAKES))
def test_a_mistake_is_found_and_told(files: Path, name: str) -> None:
    change, file, said = MISTAKES[name]
    change(files)
    problems = found(files)
    assert any(problem.startswith(f"{file}: ") and said in problem for problem in problems), "\n".join(problems)


def test_what_may_be_meant_is_told_and_stops_nothing(files: Path) -> None:
    replaced(SQL, ("FROM events\n    GROUP BY ALL", "FROM events WHERE amount < 0\n    GROUP BY ALL"))(files)
    (problem,) = check.find_source_problems(SOURCE, settings_of(files))
    assert "customer_features yields no row" in str(problem)
    assert not problem.sure
    assert check.run(CheckInputs(source=SOURCE), settings_of(files)).outcome == "passed"


@pytest.mark.ci
def test_a_feature_that_is_being_removed_is_told_and_stops_nothing(files: Path) -> None:
    """Taken out of the model alone, so that the champion that uses it goes on until a version without it serves."""
    definitions = load_definitions(files / "repo", load_model_spec(MODEL, files / "models", files / "repo").source)
    left = [name for name in definitions.names if name != "terminal_fraud_share_1d"]
    respecified(SPEC, features=left)(files)
    (problem,) = check.find_source_problems(SOURCE, settings_of(files))
    assert "do not have terminal_fraud_share_1d" in str(problem)
    assert not problem.sure
    assert check.run(CheckInputs(source=SOURCE), settings_of(files)).outcome == "passed"


@pytest.mark.ci
def test_sql_may_filter_by_values_of_its_own(files: Path) -> None:
    spec = yaml.safe_load((files / SPEC_OF_SOURCE).read_text())
    spec["feeds"]["events"]["columns"] |= {
        "country": {"type": "string"},
        "channel": {"type": "int64", "nullable": True},
    }
    (files / SPEC_OF_SOURCE).write_text(yaml.safe_dump(spec))
    where = "FROM events WHERE country = 'SE' AND (channel > 5000 OR channel IS NULL)\n    GROUP BY ALL"
    replaced(SQL, ("FROM events\n    GROUP BY ALL", where))(files)
    assert found(files) == []


@pytest.mark.ci
def test_a_request_column_that_may_be_null_may_give_nan(files: Path) -> None:
    nullable = ("amount: {type: float64, minimum: 0, ", "amount: {type: float64, nullable: true, minimum: 0, ")
    replaced(SPEC_OF_SOURCE, nullable)(files)
    sums = ("sum(CAST(amount AS DECIMAL(18, 4))) AS total", "coalesce(sum(CAST(amount AS DECIMAL(18, 4))), 0) AS total")
    replaced(SQL, sums)(files)
    assert found(files) == []


def test_all_of_them_are_found_at_once(files: Path) -> None:
    for name in (
        "a parameter of another kind",
        "SQL that reads the same day",
        "SQL that reads labels before they are reported",
        "another timestamp",
        "a function that divides by zero",
    ):
        MISTAKES[name][0](files)
    problems = found(files)
    assert {problem.split(":")[0] for problem in problems} == {SPEC, SQL, FEAST}
    assert len(problems) >= 5, "\n".join(problems)


@pytest.mark.long
def test_all_differences_between_sql_and_views_are_found_at_once(files: Path) -> None:
    for name in (
        "a feature of text",
        "a feature in the service that no query makes",
        "an entity of text",
        "two rows of an entity and a day",
    ):
        MISTAKES[name][0](files)
    said = "\n".join(found(files))
    for name in ("a feature of text", "a feature in the service that no query makes", "an entity of text"):
        assert MISTAKES[name][2] in said
    assert MISTAKES["two rows of an entity and a day"][2] in said


def test_a_source_whose_files_are_broken_keeps_no_other_from_passing(files: Path) -> None:
    copied_source(files, "card_payments_2")
    (files / "repo" / "card_payments_2.py").write_text("nonsense(")
    assert found(files) == []


def test_with_a_broken_spec_missing_files_are_told_too(files: Path) -> None:
    replaced(SPEC_OF_SOURCE, ("owner: payments-data\n", ""))(files)
    (files / "repo" / "feature_store.yaml").unlink()
    assert [problem.split(":")[0] for problem in found(files)] == [SPEC_OF_SOURCE, "repo/feature_store.yaml", SPEC]


@pytest.mark.ci
def test_what_has_passed_is_not_looked_at_again_until_a_file_changes(files: Path) -> None:
    inputs, settings = CheckInputs(source=SOURCE), settings_of(files)
    assert check.run(inputs, settings).outcome == "passed"
    assert check.run(inputs, settings).outcome == "unchanged"
    (files / SQL).open("a").write("-- A comment.\n")
    assert check.run(inputs, settings).outcome == "passed"
    MISTAKES["SQL that reads the same day"][0](files)
    for _ in range(2):
        with pytest.raises(ConfigError) as raised:
            check.run(inputs, settings)
        assert f"{files / SQL}: customer_features uses events of the day itself or later" in raised.value.message
    assert raised.value.exit_code == ExitCode.BAD_CONFIG


def settings_in(files: Path) -> dict[str, str]:
    places = {"CT_HOME": "home", "CT_MODELS_DIR": "models", "CT_FEATURE_REPO": "repo"}
    return {name: str(files / folder) for name, folder in places.items()}


def test_the_command_tells_all_models_problems_and_ends_with_78(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in settings_in(files).items():
        monkeypatch.setenv(name, value)
    (files / "models" / "other.yaml").write_text("name: other\n")
    (files / "models" / "third.yml").write_text("name: third\n")
    assert make_check.main([]) == ExitCode.BAD_CONFIG
    said = capsys.readouterr().out
    assert "✓ source card_payments" in said
    assert "✓ model card_fraud" in said
    assert "other.yaml: source is missing" in said
    assert "third.yml is not read: a spec ends in .yaml" in said
    assert "→ Rename it to end in .yaml." in said


@pytest.mark.long
def test_the_command_looks_at_the_model_or_the_source_that_is_named(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in settings_in(files).items():
        monkeypatch.setenv(name, value)
    (files / "models" / "other.yaml").write_text("name: other\n")
    copied_source(files, "third")
    make_check.main(["--model", MODEL])
    said = capsys.readouterr().out
    assert [line[:1] for line in said.splitlines() if line[:1] in "✓✗"] == ["✗", "✓"]
    assert "Sources 'card_payments' and 'third' both define" in said
    (files / "repo" / "third.yaml").unlink()
    assert make_check.main(["--source", SOURCE]) == 0
    said = capsys.readouterr().out
    assert [line.split(":")[0] for line in said.splitlines()] == ["✓ source card_payments", "✓ model card_fraud"]
    for kind in ("model", "source"):
        assert make_check.main([f"--{kind}", "nobody"]) == ExitCode.BAD_CONFIG
        assert f"No spec for {kind} 'nobody'" in "".join(capsys.readouterr())


@pytest.mark.ci
def test_a_mistake_in_a_model_does_not_keep_data_from_the_others(files: Path, caplog: pytest.LogCaptureFixture) -> None:
    MISTAKES["a parameter that the estimator does not have"][0](files)
    assert check.run(CheckInputs(source=SOURCE), settings_of(files)).outcome == "passed"
    assert "The model card_fraud cannot be trained" in caplog.text
    assert "has no parameter penalty" in caplog.text


def test_a_broken_source_names_the_models_that_learn_from_it(files: Path) -> None:
    (files / SQL).unlink()
    with pytest.raises(ConfigError) as raised:
        check.run(CheckInputs(source=SOURCE), settings_of(files))
    assert "The models that learn from it: card_fraud." in raised.value.hint


def test_columns_of_groups_must_be_of_the_event_or_features_of_the_model(files: Path) -> None:
    """The other files of the source say which features there are, so only the check finds this."""
    spec = yaml.safe_load((files / SPEC).read_text())
    spec["evaluation"] |= {
        "slices": {"columns": {"amount": {}, "terminal_fraud_share_1d": {}, "terminal_fraud_shar_1d": {}}},
        "fairness": {"columns": {"no_such_column": {}}},
    }
    (files / SPEC).write_text(yaml.safe_dump(spec))
    problems = check.find_model_problems(MODEL, settings_of(files))
    assert [str(problem) for problem in problems] == [
        "evaluation.slices.columns.terminal_fraud_shar_1d is neither a column of the events nor a feature of the model",
        "evaluation.fairness.columns.no_such_column is neither a column of the events nor a feature of the model",
    ]
    assert problems[0].fix.startswith("Did you mean 'terminal_fraud_share_1d'? ")
