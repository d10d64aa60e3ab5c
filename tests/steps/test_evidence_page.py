"""What the evidence of a version shows, and that data cannot become markup in it."""

from pathlib import Path

import pytest
import yaml

from tests.steps.monitored_model import MODEL, MonitoredModel, copied
from training.adapters.ledger import Ledger
from training.adapters.onnx_model import OnnxModel
from training.adapters.registry import Registry
from training.contract.errors import InputError
from training.contract.messages import (
    Candidate,
    Cost,
    Latency,
    Leakage,
    PartCost,
    Perturbation,
    RegisterInputs,
    Robustness,
    Stability,
    Verdict,
)
from training.contract.messages.judged_groups import (
    CalibrationBin,
    CalibrationResult,
    FairnessResult,
    Gap,
    GroupRate,
    SliceResult,
    SliceResults,
)
from training.evidence_page.__main__ import where
from training.settings import Settings
from training.steps import register

NOISE = Perturbation(
    name="noise",
    described="with noise of 0.1 standard deviations",
    columns=2,
    rows=2000,
    changed=0.0123,
    maximum=0.05,
    by_decision={"pass": 0.01, "alert": 0.2},
)
SLICES = SliceResults(
    metric="average_precision",
    confidence=0.95,
    slices=[
        SliceResult(
            where="channel is <b>web</b>",
            rows=1200,
            challenger=0.7,
            champion=0.5,
            low=0.1,
            high=0.3,
            outcome="passed",
        ),
        SliceResult(
            where="amount ≥ 500", rows=12, challenger=None, outcome="too_few", why="12 rows, where 200 are needed"
        ),
    ],
)
CALIBRATION = CalibrationResult(
    of="the score",
    error=0.013,
    low=0.0,
    high=0.02,
    confidence=0.95,
    bins=[CalibrationBin(rows=9, predicted=0.2, observed=0.3)],
)
FAIRNESS = FairnessResult(
    confidence=0.95,
    rates=[GroupRate(column="channel", measure="selection_rate", group="channel is web", rows=1200, value=0.25)],
    gaps=[
        Gap(
            column="channel",
            measure="selection_rate",
            gap=0.125,
            highest="channel is web",
            lowest="channel is shop",
        )
    ],
)
REASON = "amounts rose <script>alert(1)</script>"


@pytest.fixture(scope="module")
def registered(world: MonitoredModel, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings, champion = copied(world, tmp_path_factory.mktemp("evidence")), world.champion
    Ledger(settings.ledger).append("request", MODEL, {"reason": REASON}, "request-1")
    verdict = Verdict(
        promote=True,
        reasons=["passed: roc_auc 0.9 must be at least 0.7"],
        primary="average_precision",
        challenger={"average_precision": 0.7, "roc_auc": 0.9},
        champion={"average_precision": 0.5, "roc_auc": 0.8},
        reference={"average_precision": 0.01},
        difference=(0.1, 0.3),
        confidence=0.9,
        slices=SLICES,
        calibration=CALIBRATION,
        fairness=FAIRNESS,
        robustness=Robustness(rows=2000, unit="{} of the decisions flip", tests=[NOISE]),
        cost=Cost(
            seconds=10,
            cpu_seconds=20,
            gpu_seconds=0,
            price=0.5,
            unit="EUR",
            model_bytes=2**20,
            search=PartCost(seconds=8, cpu_seconds=16, gpu_seconds=0, price=0.4),
            fit=PartCost(seconds=2, cpu_seconds=4, gpu_seconds=0, price=0.125),
        ),
        latency=Latency(p50_ms=0.1, p99_ms=0.25, rounds_p99_ms=[0.5, 0.25], calls=200),
        stability=Stability(
            metric="roc_auc", own_seed=1, values={1: 0.9}, failed={2: "<b>no</b>"}, deviation=None, gain=0.1
        ),
        leakage=Leakage(model_explains={"score": 0.8}, explains={"x": {"score": 0.3}}, suspects=["x"], former={7: 0.6}),
    )
    artifact = Path(settings.scratch, MODEL, "versions", "of-the-test")
    served = OnnxModel.load(Registry(settings.tracking_uri).download(champion, artifact)).metadata
    challenger = Candidate(
        estimator=served.estimator, run_id=champion.run_id, artifact_uri=str(artifact), digest=champion.digest
    )
    inputs = RegisterInputs(model=MODEL, challenger=challenger, verdict=verdict, champion_version=None, reason=REASON)
    register.run(inputs, settings)
    return settings


def test_the_page_says_what_the_version_is_made_of_and_why_it_may_serve(
    registered: Settings, world: MonitoredModel
) -> None:
    html, card = (Path(line.strip()).read_text() for line in where(MODEL, "", registered)[1:3])
    for expected in (
        "Card fraud, version 1",
        "The probability that a card payment is fraudulent.",
        "It may serve: every gate passed.",
        "passed: roc_auc 0.9 must be at least 0.7",
        "average_precision (decides)",
        "naive reference",
        "data:image/png;base64,",
        "permutation importance, Breiman 2001",
        "<td>channel is &lt;b&gt;web&lt;/b&gt;</td><td>1,200</td><td>0.7000</td><td>0.5000</td>",
        "too few: 12 rows, where 200 are needed",
        "The expected calibration error of the score is 0.0130",
        "<th>channel is web (1,200 rows)</th>",
        "<td>selection_rate</td><td>0.2500</td>",
        "<td>selection_rate by channel</td><td>0.1250</td>",
        "<td>payment_amount</td>",
        f"dataset</td><td>{world.dataset.dataset_id}",
        "events 1",
        "No row of these days lies in quarantine.",
        "scikit-learn",
        f"make reproduce MODEL={MODEL} VERSION=1",
        "request-1",
        "<td>with noise of 0.1 standard deviations</td><td>2</td><td>2,000</td><td>1.23%</td><td>5.00%</td>",
        "alert: 20.00%",
        "<th>all</th><th>search for parameters</th><th>fit</th>",
        "<td>price of the machines</td><td>0.5 EUR</td><td>0.4 EUR</td><td>0.125 EUR</td>",
        "its p99 is 0.250, its median 0.100",
        "<td>1 (its own)</td><td>0.9000</td>",
        "failed: &lt;b&gt;no&lt;/b&gt;",
        "<td>the whole model</td><td>0.800</td>",
        "<td>x</td><td>0.300</td><td>suspicious</td>",
        "<th>former champion</th><th>average_precision</th></tr><tr><td>7</td><td>0.6000</td>",
    ):
        assert expected in html, expected
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "default-src" in html
    fields = yaml.safe_load(card.split("---")[1])
    assert fields["pipeline_tag"] == "tabular-classification"
    (result,) = fields["model-index"][0]["results"]
    assert {"type": "roc_auc", "value": 0.9} in result["metrics"]
    assert world.champion.digest in card


def test_a_copy_is_kept_with_the_reports_for_the_pages_in_airflow(registered: Settings) -> None:
    kept = Path(registered.work, MODEL, "evidence", "1")
    for line in where(MODEL, "", registered)[1:3]:
        fetched = Path(line.strip())
        assert (kept / fetched.name).read_bytes() == fetched.read_bytes()


def test_mlflow_describes_the_model_and_the_version(registered: Settings) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(registered.tracking_uri, registered.tracking_uri)
    model, version = client.get_registered_model(MODEL), client.get_model_version(MODEL, "1")
    assert model.description is not None
    assert model.description.startswith("Card fraud. The probability that a card payment is fraudulent.")
    assert "Owner: payments-ml" in model.description
    assert version.description is not None
    assert "Promoted by its verdict" in version.description
    assert "evidence/index.html" in version.description


def test_a_version_without_evidence_says_so(registered: Settings) -> None:
    with pytest.raises(InputError, match="has no version 77"):
        where(MODEL, "77", registered)
    with pytest.raises(InputError, match="is not the number of a version"):
        where(MODEL, "latest", registered)
    with pytest.raises(InputError, match="no registered model 'flight_delay'"):
        where("flight_delay", "", registered)
