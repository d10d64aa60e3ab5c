"""A registry, a ledger and the spec of a model whose versions people approve; nothing serves it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from tests.adapters.tiny_artifact import make_artifact
from training.adapters.ledger import Ledger
from training.adapters.registry import Registry
from training.contract import messages as m
from training.contract.model_spec import MODELS_DIR
from training.domain.approval import APPROVAL
from training.settings import Settings
from training.steps import record_approval, register, request_approval, rollout

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)


class ApprovalPlace:
    """`folder` holds an MLflow database; several models may share it."""

    def __init__(self, folder: Path, model: str = "card_fraud") -> None:
        self.folder, self.model, self.runs = folder, model, 0
        self.settings = self._settings()
        self.registry, self.ledger = Registry(self.settings.tracking_uri), Ledger(self.settings.ledger)
        self.spec(when="always")

    def _settings(self, **fields: Any) -> Settings:
        uri, models = f"sqlite:///{self.folder}/mlflow.db", self.folder / "models"
        return Settings(home=self.folder / "home", tracking_uri=uri, models_dir=models, serving_urls="", **fields)

    def spec(self, **approval: Any) -> None:
        fields = yaml.safe_load((MODELS_DIR / "card_fraud.yaml").read_text())
        fields |= {"name": self.model, "title": self.model.replace("_", " ").capitalize()}
        fields |= {"approval": approval, "serving": None, "scoring": {"when": "new_data"}}
        (self.folder / "models").mkdir(exist_ok=True)
        (self.folder / "models" / f"{self.model}.yaml").write_text(yaml.safe_dump(fields))

    def releasers(self, names: str) -> None:
        self.settings = self._settings(releasers=names)

    def inputs(self, champion: int | None = None, *failed: Any, **fields: Any) -> m.RegisterInputs:
        """Of a challenger with an artifact and an MLflow run of its own, judged against `champion`."""
        from mlflow import MlflowClient

        self.runs += 1
        artifact = Path(self.settings.work) / self.model / "artifacts" / str(self.runs)
        digest = make_artifact(artifact, self.model).digest
        client = MlflowClient(self.settings.tracking_uri, self.settings.tracking_uri)
        found = client.get_experiment_by_name(self.model)
        experiment = found.experiment_id if found else client.create_experiment(self.model, str(self.folder / "runs"))
        run = client.create_run(experiment).info.run_id
        client.log_artifacts(run, str(artifact), "served")
        verdict = m.Verdict(
            promote=not failed,
            failed=list(failed),
            reasons=["passed: it is better"],
            primary="average_precision",
            challenger={"average_precision": 0.6},
            champion=None,
            champion_digest=None if champion is None else self.registry.get(self.model, champion).digest,
            difference=None,
            confidence=0.9,
        )
        challenger = m.Candidate(estimator="mlp", run_id=run, artifact_uri=str(artifact), digest=digest)
        evaluated = m.EvaluateResult(
            challenger=challenger,
            champion_version=champion,
            verdict=verdict,
            metrics={"mlp": verdict.challenger},
            scored_rows=1,
            report_uri="",
        )
        client.log_text(run, evaluated.model_dump_json(), "verdict/report.json")
        given = {"model": self.model, "challenger": challenger, "verdict": verdict, "champion_version": champion}
        return m.RegisterInputs(**given, run=f"train-{self.runs}", reason="drift", **fields)

    def register(self, champion: int | None = None, *failed: Any, **fields: Any) -> m.RegisterResult:
        return register.run(self.inputs(champion, *failed, **fields), self.settings)

    def ask(self, version: int) -> m.RequestApprovalResult:
        return request_approval.run(m.RequestApprovalInputs(model=self.model, version=version), self.settings)

    def record(self, version: int, approved: bool | None = True, **fields: Any) -> m.RecordApprovalResult:
        attempt = fields.pop("attempt", 1)
        answer = None if approved is None else m.Answer(approved=approved, at=NOW, **{"by": "ana", **fields})
        inputs = m.RecordApprovalInputs(model=self.model, version=version, attempt=attempt, answer=answer)
        return record_approval.run(inputs, self.settings)

    def roll_out(self, of: m.RegisterResult | m.RecordApprovalResult) -> int:
        fields = of.model_dump(include={"version", "digest", "judged_against"})
        return rollout.run(
            m.RolloutInputs(model=self.model, **fields, run=f"approval-{of.version}"), self.settings
        ).version

    def aliases(self) -> dict[str, int]:
        return dict(self.registry.state(self.model).aliases)

    def tags(self, version: int) -> dict[str, str]:
        from mlflow import MlflowClient

        client = MlflowClient(self.settings.tracking_uri, self.settings.tracking_uri)
        return {
            k: v for k, v in client.get_model_version(self.model, str(version)).tags.items() if k.startswith("approval")
        }

    def evidence(self, version: int) -> str:
        """The page, as people find it in MLflow."""
        page = self.folder / "evidence.html"
        found = self.registry.get(self.model, version)
        assert self.registry.download_file(found.run_id, "evidence/index.html", page)
        return page.read_text()

    def entries(self) -> list[tuple[int, str]]:
        bodies = [entry.body for entry in self.ledger.entries(self.model, APPROVAL)]
        return [(body["version"], body.get("outcome", "asked")) for body in bodies]
