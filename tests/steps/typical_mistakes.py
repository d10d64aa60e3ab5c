"""Typical mistakes in the files of sources and models, and the one message that each must give."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.feature_repo.written_by_hand import copy_by_hand, write_flights_by_hand
from training.settings import ROOT

Change = Callable[[Path], object]

CARDS, CARDS_SQL, CARDS_PY = "repo/card_payments.yaml", "repo/card_payments.sql", "repo/card_payments.py"
FLIGHTS, FLIGHTS_SQL, FLIGHTS_PY = "repo/flights.yaml", "repo/flights.sql", "repo/flights.py"
FRAUD, DELAY, OUTCOME = "models/card_fraud.yaml", "models/flight_delay.yaml", "models/flight_outcome.yaml"


class Mistake(NamedTuple):
    kind: str
    change: Change
    file: str
    """The file that the message names."""
    said: str
    """A part of the message: with the line or the field."""
    by_hand: bool = False
    """Whether the feature tables of card_payments, and one of flights, are written by hand."""
    breaks_parsing: bool = True
    """Whether it is a mistake in a spec, which also costs the DAGs of the source or the model."""


def copy_files(folder: Path, *, by_hand: bool) -> None:
    """Sources and models of the repository into `folder`/repo and `folder`/models."""
    shutil.copytree(ROOT / "training" / "models", folder / "models")
    if by_hand:
        copy_by_hand(folder / "repo")
        write_flights_by_hand(folder / "repo")
    else:
        shutil.copytree(ROOT / "feature_repo", folder / "repo", ignore=shutil.ignore_patterns("__pycache__"))


def replaced(file: str, *pairs: tuple[str, str]) -> Change:
    def change(folder: Path) -> None:
        text = (folder / file).read_text()
        for old, new in pairs:
            assert old in text, f"{file} has no {old!r}"
            text = text.replace(old, new)
        (folder / file).write_text(text)

    return change


def removed(file: str) -> Change:
    return lambda folder: (folder / file).unlink()


def both(*changes: Change) -> Change:
    def change(folder: Path) -> None:
        for each in changes:
            each(folder)

    return change


_FIRST_COUNT = "coalesce(sum(n) FILTER (WHERE age <= 1), 0)::FLOAT"
_FIRST_DELAY = '(sum("sum_arrival_delay") FILTER (WHERE age BETWEEN 1 AND 1)'
_REPORTED = "reported < bucket + age AND bucket + age <= corrected"
_SPACES = ("range(1, 32)", "range(0, 32)")
_REGRESSION = "kind: regression\n  interval: {coverage: 0.9}"
_REFERENCE = "  # What a first champion must beat.\n  reference: {statistic: mean, by: [route]}\n"


def _of_sql(kind: str, change: Change, file: str, said: str) -> Mistake:
    return Mistake(kind, change, file, said, by_hand=True, breaks_parsing=False)


def _late(kind: str, change: Change, file: str, said: str) -> Mistake:
    """Of files that are not parsed with the DAGs."""
    return Mistake(kind, change, file, said, breaks_parsing=False)


MISTAKES = [
    Mistake(
        "typo in a column: cards",
        replaced(CARDS, ("column: amount", "column: amonut")),
        CARDS,
        "aggregations.customer_mean.column names 'amonut', which is not one of the columns",
    ),
    Mistake(
        "typo in a column: flights",
        replaced(FLIGHTS, ("[carrier, origin, destination", "[carier, origin, destination")),
        FLIGHTS,
        "features.event_columns names 'carier', which is not one of the columns",
    ),
    Mistake(
        "typo in the column of a condition: flights",
        replaced(FLIGHTS, ("outcome = 'late'", "outcom = 'late'")),
        FLIGHTS,
        "aggregations.origin_late.condition uses 'outcom', which is not one of its columns",
    ),
    _of_sql(
        "typo in a column of SQL: cards",
        replaced(CARDS_SQL, ("sum(CAST(amount", "sum(CAST(amonut")),
        CARDS_SQL,
        "customer_features: Query 'customer_features' failed (line 15): Binder Error: Referenced column \"amonut\" not",
    ),
    _of_sql(
        "typo in a column of SQL: flights",
        replaced(FLIGHTS_SQL, ('events."scheduled_departure"', 'events."schedulde_departure"')),
        FLIGHTS_SQL,
        "carrier_delays: Query 'carrier_delays' failed (line 15): Binder Error",
    ),
    _late(
        "typo in a column of a request: cards",
        replaced(CARDS_PY, ('Field(name="amount"', 'Field(name="amonut"')),
        CARDS_PY,
        "on-demand view request_features takes 'amonut' of a request, which is not one of the columns",
    ),
    Mistake(
        "typo in an entity: cards",
        replaced(CARDS, ("entity: customer_id", "entity: custmer_id")),
        CARDS,
        "features.tables.customer_features.entity names 'custmer_id', which is not one of the columns",
    ),
    Mistake(
        "typo in an entity: flights",
        replaced(FLIGHTS, ("entity: route", "entity: rout")),
        FLIGHTS,
        "features.tables.route_delays.entity names 'rout', which is not one of the columns",
    ),
    Mistake(
        "typo in the entity of a model: cards",
        replaced(FRAUD, ("entity: customer_id", "entity: custmer_id")),
        FRAUD,
        "evaluation.entity names 'custmer_id', which is not one of the columns",
    ),
    _of_sql(
        "typo in the entity of a view: cards",
        replaced(CARDS_PY, ('join_keys=["customer_id"]', 'join_keys=["custmer_id"]')),
        CARDS_PY,
        "customer_features by custmer_id instead of customer_id",
    ),
    _of_sql(
        "typo in the entity of a view: flights",
        replaced(FLIGHTS_PY, ('join_keys=["carrier"]', 'join_keys=["carier"]')),
        FLIGHTS_PY,
        "carrier_delays by carier instead of carrier",
    ),
    Mistake(
        "typo in a type: cards",
        replaced(CARDS, ("amount: {type: float64", "amount: {type: flaot64")),
        CARDS,
        "feeds.events.columns.amount.type is 'flaot64', which is not a type",
    ),
    Mistake(
        "typo in a type: flights",
        replaced(FLIGHTS, ("distance: {type: int64", "distance: {type: integer")),
        FLIGHTS,
        "feeds.events.columns.distance.type is 'integer', which is not a type",
    ),
    _of_sql(
        "typo in a type of Feast: flights",
        replaced(FLIGHTS_PY, ('"carrier_delay_7d", dtype=Float32', '"carrier_delay_7d", dtype=Flaot32')),
        FLIGHTS_PY,
        "failed (line 15): NameError: name 'Flaot32' is not defined",
    ),
    _of_sql(
        "a type of Feast that cuts values: cards",
        replaced(
            CARDS_PY,
            ('name="customer_mean_1d", dtype=Float32', 'name="customer_mean_1d", dtype=Int64'),
            ("import Float32,", "import Float32, Int64,"),
        ),
        CARDS_PY,
        "customer_mean_1d (float in the SQL, Int64 in the view)",
    ),
    _of_sql(
        "SQL error: cards",
        replaced(CARDS_SQL, ("FROM spread\nGROUP BY customer_id", "FORM spread\nGROUP BY customer_id")),
        CARDS_SQL,
        "customer_features: Query 'customer_features' is not one SELECT (line 33): Parser Error: syntax error at or",
    ),
    _of_sql(
        "SQL error: flights",
        replaced(FLIGHTS_SQL, ("GROUP BY entity, moment", "GRUOP BY entity, moment")),
        FLIGHTS_SQL,
        "carrier_delays: Query 'carrier_delays' is not one SELECT (line ",
    ),
    _late(
        "SQL error in a condition: flights",
        replaced(FLIGHTS, ("outcome = 'late'", "outcome = = 'late'")),
        FLIGHTS,
        "origin_outcomes.aggregations.origin_late.condition is `outcome = = 'late'`, which does not run: Parser Error",
    ),
    _late(
        "a condition of another type: cards",
        replaced(CARDS, ("condition: is_fraud = 1", "condition: is_fraud + 1")),
        CARDS,
        "aggregations.terminal_fraud_share.condition is `is_fraud + 1`, which is a int",
    ),
    _of_sql(
        "SQL that reads later events: cards",
        replaced(CARDS_SQL, _SPACES),
        CARDS_SQL,
        "customer_features uses events of the day itself or later at the start of",
    ),
    _of_sql(
        "SQL that reads labels before their report: cards",
        replaced(
            CARDS_SQL, ("CASE WHEN reported_on < paid_on + age AND", "CASE WHEN reported_on <= paid_on + age AND")
        ),
        CARDS_SQL,
        "terminal_features uses labels that were not yet reported at the start of",
    ),
    _of_sql(
        "SQL that reads labels before their report: flights",
        replaced(FLIGHTS_SQL, (_REPORTED, "reported <= bucket + age AND bucket + age <= corrected")),
        FLIGHTS_SQL,
        "carrier_delays uses labels that were not yet reported at the start of",
    ),
    _of_sql(
        "SQL that depends on the clock: cards",
        replaced(CARDS_SQL, (_FIRST_COUNT, "(current_date - day)::FLOAT")),
        CARDS_SQL,
        "customer_features depends on the current time: it uses current_date",
    ),
    _of_sql(
        "SQL that depends on the clock: flights",
        replaced(FLIGHTS_SQL, (_FIRST_DELAY, f"(epoch(now() - moment) + {_FIRST_DELAY[1:]}")),
        FLIGHTS_SQL,
        "carrier_delays depends on the current time: it uses now()",
    ),
    _late(
        "a condition that depends on the clock: flights",
        replaced(FLIGHTS, ("outcome = 'late'", "scheduled_departure < now()")),
        FLIGHTS,
        "origin_late.condition is `scheduled_departure < now()`, which depends on the current time: it uses now()",
    ),
    _of_sql(
        "SQL that depends on chance: cards",
        replaced(CARDS_SQL, (_FIRST_COUNT, "random()::FLOAT")),
        CARDS_SQL,
        "customer_features yields other rows when it runs again: customer_count_1d differs",
    ),
    _of_sql(
        "SQL that depends on chance: flights",
        replaced(FLIGHTS_SQL, (_FIRST_DELAY, f"(random() + {_FIRST_DELAY[1:]}")),
        FLIGHTS_SQL,
        "carrier_delays yields other rows when it runs again: carrier_delay_1d differs",
    ),
    _late(
        "a feature that the source does not have: cards",
        replaced(FRAUD, ("features: all", "features: [customer_count_1d, customer_cuont_7d]")),
        FRAUD,
        "features: The spec of model card_fraud names the features ['customer_cuont_7d'], which the source does not",
    ),
    _late(
        "a typo in a feature that may explain the label: cards",
        replaced(FRAUD, ("  k: 100", "  k: 100\n  leakage: {expected: [payment_amont]}")),
        FRAUD,
        "evaluation.leakage.expected names 'payment_amont', which is not one of the model's features",
    ),
    _late(
        "a feature that the source does not have: flights",
        replaced(DELAY, ("features: all", "features: [distance, carrier_delay_2d]")),
        DELAY,
        "features: The spec of model flight_delay names the features ['carrier_delay_2d'], which the source does not",
    ),
    _late(
        "a service that the source does not have: flights",
        replaced(DELAY, ("features: all", "features: {service: delays}")),
        DELAY,
        "defines no feature service 'delays'",
    ),
    _of_sql(
        "a feature that the view lacks: flights",
        replaced(
            FLIGHTS_PY,
            ('        Field(name="carrier_delay_1d", dtype=Float32, tags={"default": "null"}),\n', ""),
        ),
        FLIGHTS_PY,
        "view carrier_delays: Query 'carrier_delays'",
    ),
    _of_sql(
        "a feature that the SQL lacks: cards",
        replaced(CARDS_SQL, (f"    {_FIRST_COUNT} AS customer_count_1d,\n", "")),
        CARDS_PY,
        "view customer_features: The feature view 'customer_features'",
    ),
    _of_sql(
        "a feature that the SQL lacks: flights",
        replaced(FLIGHTS_SQL, ('    "carrier_delay_1d",\n', "")),
        FLIGHTS_PY,
        "has ['carrier_delay_1d'], which its query in",
    ),
    _of_sql(
        "another entity than the SQL: cards",
        replaced(CARDS, ("{entity: customer_id", "{entity: terminal_id")),
        CARDS_SQL,
        "customer_features: Query 'customer_features' yields ['customer_id'",
    ),
    _of_sql(
        "another entity than the SQL: flights",
        replaced(FLIGHTS, ("entity: carrier\n", "entity: origin\n")),
        FLIGHTS_SQL,
        "carrier_delays: Query 'carrier_delays' yields ['carrier', 'day'",
    ),
    Mistake(
        "an entity that cannot be one: flights",
        replaced(FLIGHTS, ("entity: origin", "entity: temperature")),
        FLIGHTS,
        "features.tables.origin_outcomes.entity names 'temperature', a column of type float64",
    ),
    Mistake(
        "a column twice: cards",
        replaced(CARDS, ("      amount: {", "      customer_id: {type: int64}\n      amount: {")),
        CARDS,
        "line 17: the key 'customer_id' is already on line 15",
    ),
    Mistake(
        "a column twice but for case: flights",
        replaced(FLIGHTS, ("      distance: {", "      Distance: {type: int64}\n      distance: {")),
        FLIGHTS,
        "feeds.events.columns.distance differs from 'Distance' only in upper and lower case",
    ),
    Mistake(
        "a feature twice: flights",
        replaced(FLIGHTS, ("carrier_delay: {", "route_delay: {")),
        FLIGHTS,
        "carrier_delays.aggregations.route_delay gives the feature route_delay_7d, as",
    ),
    _of_sql(
        "a feature twice: cards",
        both(
            replaced(CARDS_PY, ("terminal_count_1d", "customer_count_1d")),
            replaced(CARDS_SQL, ("terminal_count_1d", "customer_count_1d")),
        ),
        CARDS_PY,
        "the feature views have the features ['customer_count_1d'] twice",
    ),
    Mistake(
        "a table twice: flights",
        replaced(FLIGHTS, ("    carrier_delays:", "    route_delays:")),
        FLIGHTS,
        "the key 'route_delays' is already on line",
    ),
    _of_sql(
        "a table twice in the SQL: cards",
        replaced(CARDS_SQL, ("-- table: terminal_features", "-- table: customer_features")),
        CARDS_SQL,
        "has a line `-- table: customer_features` twice",
    ),
    _late(
        "a table that another source has",
        replaced(FLIGHTS, ("    carrier_delays:", "    customer_features:")),
        FLIGHTS,
        "Sources 'card_payments' and 'flights' both define feature view 'customer_features'",
    ),
    Mistake(
        "the name of another model",
        lambda folder: shutil.copy(folder / FRAUD, folder / "models/card_fraud_2.yaml"),
        "models/card_fraud_2.yaml",
        "holds the spec of 'card_fraud'",
    ),
    Mistake(
        "the name of another source",
        lambda folder: shutil.copy(folder / FLIGHTS, folder / "repo/flights_2.yaml"),
        "repo/flights_2.yaml",
        "holds the spec of 'flights'",
    ),
    Mistake(
        "text labels: cards",
        replaced(CARDS, ("is_fraud: {type: int64, values: [0, 1]", "is_fraud: {type: string, values: [fraud, legit]")),
        FRAUD,
        "label names 'is_fraud', whose type is string, but the label of a binary task must be an integer",
    ),
    Mistake(
        "text labels: flights",
        replaced(DELAY, ("label: arrival_delay", "label: outcome")),
        DELAY,
        "label names 'outcome', whose type is string, but the label of a regression must be a number",
    ),
    _of_sql("no SQL: cards", removed(CARDS_SQL), CARDS_SQL, "have no aggregations"),
    _of_sql("no views: cards", removed(CARDS_PY), CARDS_PY, "does not exist, but the tables ['customer_features',"),
    _of_sql("no SQL: flights", removed(FLIGHTS_SQL), FLIGHTS_SQL, "but ['carrier_delays'] have no aggregations"),
    _of_sql("no views: flights", removed(FLIGHTS_PY), FLIGHTS_PY, "does not exist, but the tables ['carrier_delays']"),
    Mistake("no source: flights", removed(FLIGHTS), DELAY, "source names 'flights', but there is no spec at"),
    _late("no feature store", removed("repo/feature_store.yaml"), "repo/feature_store.yaml", "There is no such file"),
    Mistake(
        "another ending",
        lambda folder: (folder / DELAY).rename(folder / "models/flight_delay.yml"),
        "models/flight_delay.yml",
        "is not read: a spec ends in .yaml",
    ),
    _of_sql(
        "a history that is too short: cards",
        replaced(CARDS, ("history_days: 31", "history_days: 20")),
        CARDS_SQL,
        "customer_features uses events or labels from more than its history_days (20) ago",
    ),
    _of_sql(
        "a history that is too short: flights",
        replaced(FLIGHTS, ("history_days: 31", "history_days: 30")),
        FLIGHTS_SQL,
        "carrier_delays uses events or labels from more than its history_days (30) ago",
    ),
    Mistake(
        "a window too short for the search: flights",
        replaced(
            DELAY,
            (
                "  window_days: 84",
                "  search: {trials: 2, train_days: 60, fold_days: 14, folds: 3, spaces: {lightgbm: {max_iter: {low: 1,"
                " high: 9}}}}\n  window_days: 84",
            ),
        ),
        DELAY,
        "training.search",
    ),
    Mistake(
        "a label column that is not there: cards",
        replaced(CARDS, ("      is_fraud: {type", "      is_fruad: {type")),
        CARDS,
        "labels.is_fraud is not one of the columns",
    ),
    Mistake(
        "a label that is not there: flights",
        replaced(DELAY, ("label: arrival_delay", "label: arival_delay")),
        DELAY,
        "label names 'arival_delay', which is not one of the labels",
    ),
    Mistake(
        "a feed of labels that is not there: flights",
        replaced(FLIGHTS, ("outcome: {feed: labels", "outcome: {feed: lables")),
        FLIGHTS,
        "labels.outcome.feed names 'lables', which is not one of the feeds",
    ),
    Mistake(
        "a task that does not fit the label: flights, binary",
        replaced(DELAY, (_REGRESSION, "kind: binary"), (_REFERENCE, "")),
        DELAY,
        "label names 'arrival_delay', whose type is float64, but the label of a binary task must be an integer",
    ),
    Mistake(
        "a task that does not fit the label: flights, regression",
        replaced(OUTCOME, ("kind: multiclass", "kind: regression")),
        OUTCOME,
        "label names 'outcome', whose type is string, but the label of a regression must be a number",
    ),
    Mistake(
        "a decision of another task: cards",
        replaced(FRAUD, ("kind: binary", "kind: multiclass")),
        FRAUD,
        "task.decision.alert_rate: There is no such field",
    ),
    Mistake("a task that does not exist: cards", replaced(FRAUD, ("kind: binary", "kind: binray")), FRAUD, "task.kind"),
    Mistake(
        "an unknown source: cards",
        replaced(FRAUD, ("source: card_payments", "source: card_payment")),
        FRAUD,
        "source names 'card_payment', but there is no spec at",
    ),
    Mistake(
        "an unknown source: flights",
        replaced(OUTCOME, ("source: flights", "source: flight")),
        OUTCOME,
        "source names 'flight', but there is no spec at",
    ),
    Mistake(
        "no label delay: cards",
        replaced(CARDS, ("{feed: labels, delay_days: 7}", "{feed: labels}")),
        CARDS,
        "labels.is_fraud.delay_days is missing",
    ),
    Mistake(
        "no label delay: flights",
        replaced(FLIGHTS, ("outcome: {feed: labels, delay_days: 2}", "outcome: {feed: labels}")),
        FLIGHTS,
        "labels.outcome.delay_days is missing",
    ),
    Mistake(
        "a table that uses a label without naming it: flights",
        replaced(FLIGHTS, ("      label: outcome\n", "")),
        FLIGHTS,
        "features.tables.origin_outcomes.label is missing, but the aggregations use the label outcome",
    ),
    Mistake(
        "a table that uses a label without naming it: cards",
        replaced(CARDS, ("      label: is_fraud", "      #label: is_fraud")),
        CARDS,
        "features.tables.terminal_features.label is missing, but the aggregations use the label is_fraud",
    ),
]
