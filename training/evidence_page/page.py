"""The evidence of a version as one HTML page."""

import base64
from collections.abc import Iterable, Iterator
from html import escape

import pandas as pd

from training import web_pages
from training.contract.messages import Metrics
from training.contract.recipe import RECIPE_FOLDER
from training.domain.gates.report import group_tables
from training.evidence_page import Evidence, approval, challenger
from training.sbom import SBOM_FILE

#: Reasons of quarantine that are shown.
_REASONS = 15


def html(evidence: Evidence) -> str:
    """The page. It is self-contained."""
    spec, version = evidence.spec, evidence.version
    return web_pages.page(f"{spec.title}, version {version}: evidence", _parts(evidence))


def _parts(e: Evidence) -> Iterator[str]:
    yield _section("What it is", _facts(_identity(e)))
    yield _section("Verdict", _verdict(e))
    if e.approvals is not None and (decided := approval.section(e.version, e.approvals)):
        yield _section("Approval", decided)
    yield _section("Quality on the holdout", web_pages.table(*_quality(e)))
    for table in group_tables(e.inputs.verdict):
        yield _section(table.title, f"<p>{escape(table.said)}</p>{web_pages.table(table.head, table.rows)}")
    for title, content in challenger.sections(e.inputs.verdict):
        yield _section(title, content)
    yield _section("Plots", "".join(_plot(name, png) for name, png in sorted(e.plots.items())) or "None are kept.")
    yield _section("What the predictions depend on", _importance(e))
    yield _section("Data", _facts(_data(e)) + _features(e) + _quarantine(e))
    yield _section("How it was made", _facts(_making(e)) + _libraries(e))
    yield _section("Ledger", _ledger(e))


def _identity(e: Evidence) -> Iterator[tuple[str, str]]:
    spec, metadata = e.spec, e.metadata
    yield "model", f"{spec.name}: {spec.title}"
    yield "intended use", spec.description or "The model spec does not say (field description)."
    yield "owner", spec.owner
    yield "kind of prediction", spec.task.kind
    yield "estimator", metadata.estimator
    yield "version", f"{e.version}, run {e.inputs.challenger.run_id}"
    yield "SHA-256 of model.onnx", metadata.digest
    yield "why it was trained", e.inputs.reason or "No reason was given."
    yield "trained as of", str(metadata.as_of)


def _verdict(e: Evidence) -> str:
    verdict = e.inputs.verdict
    if verdict.promote:
        said = "It may serve: every gate passed."
    elif e.approvals is not None and e.version in e.approvals.requests:
        said = "The gates do not decide: at least one failed, and a person does."
    else:
        said = "A person registered it by force, against the verdict: at least one gate failed."
    against = "there was no champion" if verdict.champion is None else f"champion version {e.inputs.champion_version}"
    gates = "".join(f"<li>{escape(reason)}</li>" for reason in verdict.reasons)
    return f"<p><b>{said}</b> Compared with: {escape(against)}.</p><ul>{gates}</ul>"


def _quality(e: Evidence) -> tuple[list[str], list[list[str]]]:
    verdict, errors = e.inputs.verdict, e.metadata.holdout_standard_errors
    columns: dict[str, Metrics] = {"this version": verdict.challenger}
    if verdict.champion is not None:
        columns[f"champion, version {e.inputs.champion_version}"] = verdict.champion
    if verdict.reference:
        columns["naive reference"] = verdict.reference
    rows = []
    for name in verdict.challenger:
        primary = " (decides)" if name == verdict.primary else ""
        error = f" ± {errors[name]:.4f}" if name in errors else ""
        rows.append([name + primary, *(_number(values.get(name)) for values in columns.values())])
        rows[-1][1] += error
    return ["metric", *columns], rows


def _plot(name: str, png: bytes) -> str:
    title, content = name.removesuffix(".png").replace("_", " "), base64.b64encode(png).decode()
    return f'<figure><img alt="{escape(title)}" src="data:image/png;base64,{content}"></figure>'


def _importance(e: Evidence) -> str:
    if not e.importance:
        return "It is not kept."
    ranked = sorted(e.importance.items(), key=lambda item: -item[1])
    rows = [[name, f"{drop:+.4f}"] for name, drop in ranked]
    how = f"By how much {escape(e.inputs.verdict.primary)} gets worse on the holdout when the values of a feature are "
    how += "shuffled (permutation importance, Breiman 2001). Features that say the same share their importance."
    return f"<p>{how}</p>{web_pages.table(['feature', 'worse by'], rows)}"


def _data(e: Evidence) -> Iterator[tuple[str, str]]:
    spec, metadata = e.spec, e.metadata
    yield "source", f"{spec.source.name}: {spec.source.title}"
    yield "label", f"{spec.label}, known {spec.label_spec.delay_days} days after the event"
    yield "training days", f"{metadata.train_days} ({len(metadata.train_days)} days)"
    yield "holdout days", f"{metadata.holdout_days} ({len(metadata.holdout_days)} days)"
    for name, count in metadata.holdout_counts.items():
        share = count / max(sum(metadata.holdout_counts.values()), 1)
        yield f"holdout rows with label {name}", f"{count:,} ({share:.2%})"
    yield "dataset", metadata.dataset_id
    yield "table versions", ", ".join(f"{table} {number}" for table, number in metadata.table_versions.items())


def _features(e: Evidence) -> str:
    if e.reference is None:
        return ""
    head = ["feature", "missing", "lowest or most frequent", "median", "highest"]
    rows = [[name, *_range(e.reference[name])] for name in e.metadata.feature_names if name in e.reference]
    return f"<p>A sample of {len(e.reference):,} training rows:</p>{web_pages.table(head, rows)}"


def _range(values: pd.Series) -> list[str]:
    missing, known = f"{values.isna().mean():.1%}", values.dropna()
    if known.empty:
        return [missing, "–", "–", "–"]
    if pd.api.types.is_numeric_dtype(known):
        return [missing, *(f"{number:g}" for number in (known.min(), known.median(), known.max()))]
    frequent = known.value_counts(normalize=True)
    shown = ", ".join(f"{name} {share:.0%}" for name, share in frequent.head(3).items())
    return [missing, shown, "–", f"{len(frequent)} values"]


def _quarantine(e: Evidence) -> str:
    if not e.quarantined:
        return "<p>No row of these days lies in quarantine.</p>"
    rows = [[feed, reason, f"{count:,}"] for (feed, reason), count in e.quarantined.most_common(_REASONS)]
    said = f"Rows of these days in quarantine: {sum(e.quarantined.values()):,}."
    return f"<p>{said}</p>{web_pages.table(['feed', 'reason', 'rows'], rows)}"


def _making(e: Evidence) -> Iterator[tuple[str, str]]:
    yield "parameters", ", ".join(f"{name} = {value}" for name, value in e.metadata.parameters.items()) or "defaults"
    yield "time of the fit", f"{e.run_tags.get('fit_seconds', 'not known')} s on {e.run_tags.get('device', 'cpu')}"
    if e.recipe is not None:
        yield from e.recipe.machine.items()
        yield "seed", str(e.recipe.fit.get("seed", ""))
        yield "commit", e.recipe.git_sha or "not known"
        yield "image", e.recipe.image or "none"
        if e.recipe.sbom:
            where = f"{RECIPE_FOLDER}/{SBOM_FILE} among the artifacts of the run, SHA-256 {e.recipe.sbom}"
            yield "bill of materials", where
    yield "make it again", f"make reproduce MODEL={e.spec.name} VERSION={e.version}"


def _libraries(e: Evidence) -> str:
    if e.recipe is None:
        return ""
    listed = web_pages.table(["library", "version"], sorted(map(list, e.recipe.libraries.items())))
    return f"<details><summary>{len(e.recipe.libraries)} installed libraries</summary>{listed}</details>"


def _ledger(e: Evidence) -> str:
    rows = [
        [str(entry.seq), f"{entry.at:%Y-%m-%d %H:%M} UTC", entry.kind, entry.key, entry.hash[:16]]
        for entry in e.entries
    ]
    said = "The newest entries when this page was made. `make ledger-verify` checks them."
    return f"<p>{said}</p>{web_pages.table(['number', 'at', 'kind', 'key', 'hash'], rows)}"


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    return web_pages.table(["", ""], [list(fact) for fact in facts])


def _section(title: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2>{content}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
