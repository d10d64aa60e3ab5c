"""The generic rooms speak of events, entities, labels, predictions and alerts, never of one source's business."""

import re
from collections.abc import Iterator
from pathlib import Path

from training.settings import ROOT

#: Words of the source card_payments, its model and its demo. `discard` and `scorecard` are other words.
WORDS = re.compile(r"(?<![a-z])(payments?|cards?|frauds?|fraudulent|flag(?:s|ged|ging)?|terminals?)(?![a-z])")
#: Terms of the field, and titles of books that are cited.
TERMS = re.compile(r"model[ _-]cards?|data cards?|fraud\s+detection\s+handbook")

ROOMS = ("training", "serving", "plugins", "dags", "helm", "deploy", "testing", "benchmarks", "local")
#: They belong to the source card_payments and its model, whatever room they stand in.
OF_CARD_PAYMENTS = {
    "training/models/": "the specs of the reference models",
    "local/changes.py": "the changes that the generator can apply",
    "local/generator.py": "the generator",
    "local/handbook.py": "the public data of the Fraud Detection Handbook",
    "local/landing.py": "writes the feeds of the source",
    "local/plans/card_fraud.py": "the demo of the reference model",
    "benchmarks/data/": "moves the generator's events",
    "benchmarks/drift.py": "looks at the generator's events",
    "benchmarks/feature_sql.py": "computes features of the generator's events",
    "benchmarks/handbook/": "the handbook's protocol on the source's data",
    "benchmarks/ingest.py": "ingests events of the source",
    "benchmarks/loop.py": "runs the demo's data through the loop",
    "benchmarks/monitoring/": "watches the generator's events",
    "benchmarks/point_in_time_join.py": "joins the generator's events",
    "benchmarks/score.py": "scores the generator's events",
    "benchmarks/serving/": "serves the reference model",
    "benchmarks/small_files.py": "logs predictions of the reference model",
    "benchmarks/soak.py": "serves the reference model",
    "benchmarks/spark.py": "computes features of generated events",
}
#: Path → the words that it may contain, and why.
EXCEPTIONS = {
    "helm/gitops/build/templates/build.yaml": ({"flags"}, "a variable of BuildKit"),
    "local/plans/__init__.py": ({"card", "fraud"}, "names the default"),
    "local/progress.py": ({"terminal"}, "an attribute of rich"),
    "serving/segments.py": ({"flagged"}, "a column of the log's earlier layout"),
    "testing/chaos_loop.py": ({"terminal"}, "compares the tables of the reference model's source"),
    "testing/loop_steps.py": (
        {"card", "fraud", "payments", "terminals"},
        "runs the steps of the reference model",
    ),
    "testing/many_specs.py": ({"card", "fraud", "payments"}, "copies the specs of the reference model"),
    "testing/reference_models.py": (
        {"card", "fraud", "payments", "terminals"},
        "lands and serves the reference models",
    ),
    "testing/spec_files.py": ({"card", "fraud", "payments"}, "copies the specs of the reference model"),
    "testing/serving_artifacts.py": ({"card", "fraud", "payment", "terminal"}, "a small reference model"),
    "testing/serving_stack.py": ({"card", "fraud", "terminal"}, "serves the reference model"),
    "testing/task_kinds.py": ({"card", "fraud", "payment", "payments"}, "serves the reference model"),
    "training/contract/names.py": ({"card"}, "a metric in stored runs"),
    "training/contract/signals.py": ({"flagged"}, "a name in the signals of the release before"),
    "training/domain/predictions.py": ({"flagged"}, "a column of the log's earlier layout"),
    "training/split_spec.py": ({"card", "flags"}, "reads the specs of the release before"),
}


def words(text: str) -> set[str]:
    """Words of card_payments in `text`, in lower case; parts of identifiers count as words."""
    return set(WORDS.findall(TERMS.sub(" ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower())))


def files() -> Iterator[tuple[str, str]]:
    """Path and text of each file of the generic rooms."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*")):
            name = path.relative_to(ROOT).as_posix()
            if path.is_file() and "__pycache__" not in name and not name.startswith(tuple(OF_CARD_PAYMENTS)):
                yield name, read(path)


def read(path: Path) -> str:
    return path.read_text(errors="ignore")


def test_words_are_found_in_texts_and_identifiers() -> None:
    assert words("A customer's Payment, its card_id, isFraud") == {"payment", "card", "fraud"}
    assert words("FLAGS of the terminal_features") == {"flags", "terminal"}
    assert words("discard the Scorecards; see the model card and the Fraud Detection\n    Handbook") == set()


def test_generic_rooms_name_nothing_of_card_payments() -> None:
    found = {name: sorted(words(text) - EXCEPTIONS.get(name, (set(), ""))[0]) for name, text in files()}
    assert len(found) > 300
    assert {name: those for name, those in found.items() if those} == {}


def test_every_exception_is_needed() -> None:
    texts = dict(files())
    needless = {name: sorted(allowed - words(texts.get(name, ""))) for name, (allowed, _) in EXCEPTIONS.items()}
    assert {name: those for name, those in needless.items() if those} == {}
    assert [name for name in OF_CARD_PAYMENTS if not (ROOT / name).exists()] == []
