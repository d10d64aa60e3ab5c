"""A step takes a URI only from the folder that its input declares: through the step's command line."""

import contextlib
import io
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from training import storage
from training.__main__ import main
from training.contract.errors import ExitCode
from training.contract.state_uris import LiesIn, StateUri, WorkUri, state_uris
from training.contract.steps import STEPS

#: Names of inputs that say where something is.
A_PLACE = re.compile(r"(^|_)(uri|url|path|file|folder|directory)s?$")

CANDIDATE = {"estimator": "mlp", "run_id": "r", "digest": "d"}
VERDICT = {"promote": True, "reasons": [], "primary": "pr_auc", "challenger": {}, "champion": None}
VERDICT |= {"difference": None, "confidence": 0.95}
FIT = {"model": "card_fraud", "estimator": "mlp", "seed": 1}
#: For each field with a URI: its folder, the step, and inputs without the field's value, which is URI.
INPUTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ingest uri": (
        "landing",
        "ingest",
        {"source": "card_payments", "feed": "events", "partition": "2026-01-05", "uri": "URI"},
    ),
    "search dataset_uri": ("work", "search", {**FIT, "part": 0, "dataset_uri": "URI"}),
    "train dataset_uri": ("work", "train", {**FIT, "dataset_uri": "URI"}),
    "evaluate dataset_uri": (
        "work",
        "evaluate",
        {"model": "card_fraud", "candidates": [], "dataset_uri": "URI", "seed": 1},
    ),
    "evaluate candidates.0.artifact_uri": (
        "work",
        "evaluate",
        {
            "model": "card_fraud",
            "candidates": [{**CANDIDATE, "artifact_uri": "URI"}],
            "dataset_uri": "INSIDE",
            "seed": 1,
        },
    ),
    "register challenger.artifact_uri": (
        "work",
        "register",
        {
            "model": "card_fraud",
            "challenger": {**CANDIDATE, "artifact_uri": "URI"},
            "verdict": VERDICT,
            "champion_version": None,
        },
    ),
}


def filled(inputs: Any, uri: str, inside: str) -> Any:
    text = json.dumps(inputs)
    return json.loads(text.replace('"URI"', json.dumps(uri)).replace('"INSIDE"', json.dumps(inside)))


def run(step: str, inputs: Any, home: Path, **settings: str) -> tuple[int, str]:
    """The exit code and the error of a step. A process for each would import everything again."""
    before, said = signal.getsignal(signal.SIGTERM), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        for name in [name for name in os.environ if name.startswith(("CT_", "AWS_"))]:
            patch.delenv(name)
        for name, value in {"CT_HOME": str(home), "CT_TRACKING_URI": f"sqlite:///{home}/m.db", **settings}.items():
            patch.setenv(name, value)
        try:
            code = main([step, "--inputs", json.dumps(inputs)])
        finally:
            signal.signal(signal.SIGTERM, before)
    return code, str(json.loads(said.getvalue())["error"]["message"])


@pytest.mark.parametrize("name", INPUTS)
def test_each_input_is_refused_outside_of_its_folder(name: str, tmp_path: Path) -> None:
    folder, step, inputs = INPUTS[name]
    other = "work" if folder == "landing" else "landing"
    outside = str(tmp_path / other / "card_payments" / "events" / "2026-01-05.parquet")
    code, error = run(step, filled(inputs, outside, str(tmp_path / "work" / "d")), tmp_path)
    assert code == ExitCode.BAD_INPUT
    field = name.split()[1]
    assert f"{field} is '{outside}', which is not in the {folder} folder {tmp_path / folder}" in error


def test_an_input_in_its_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "landing").symlink_to(tmp_path / "real")  # The folder itself may be a link.
    for uri in (f"{tmp_path}/landing/x.parquet", f"file://{tmp_path}/real/x.parquet"):
        code, error = run("ingest", filled(INPUTS["ingest uri"][2], uri, ""), tmp_path)
        assert (code, error) == (ExitCode.BAD_INPUT, f"There is no file at {uri}")


def traversals(root: Path) -> Iterator[str]:
    """URIs of `root`/secret.parquet, and others outside of `root`/landing."""
    (root / "landing" / "deep").mkdir(parents=True)
    (root / "secret.parquet").touch()
    (root / "landing-evil").mkdir()
    (root / "landing" / "link.parquet").symlink_to("../secret.parquet")
    (root / "landing" / "linked").symlink_to(root)
    (root / "landing" / "circle").symlink_to("circle")
    yield f"{root}/secret.parquet"
    yield f"file://{root}/secret.parquet"
    yield f"FILE://{root}/secret.parquet"
    yield f"file://localhost{root}/landing/x.parquet"
    yield f"{root}/landing/../secret.parquet"
    yield f"file://{root}/landing/deep/../../secret.parquet"
    yield f"{root}/landing/%2e%2e/secret.parquet"
    yield f"{root}/landing/%252e%252e%252fsecret.parquet"
    yield f"{root}/landing-evil/x.parquet"
    yield f"{root}/landing"
    yield f"{root}/landing/link.parquet"
    yield f"{root}/landing/linked/secret.parquet"
    yield f"{root}/landing/circle/x.parquet"
    yield f"{root}/landing/nul\0.parquet"
    yield "landing/x.parquet"
    yield ""
    yield "s3://landing/x.parquet"
    yield "http://127.0.0.1:1/landing/x.parquet"
    yield "memory://landing/x.parquet"


def test_nothing_leads_out_of_a_local_folder(tmp_path: Path) -> None:
    taken = [uri for uri in traversals(tmp_path) if storage.lies_in(uri, f"{tmp_path}/landing")]
    assert taken == []
    assert not storage.lies_in(f"{tmp_path}/secret.parquet", f"file://{tmp_path}/landing")
    assert storage.lies_in(f"{tmp_path}/landing/100%.parquet", f"file://{tmp_path}/landing/")


@pytest.mark.parametrize(
    "uri", ["landing/../secret.parquet", "landing/link.parquet", "landing/%2e%2e/secret.parquet", "landing/linked/x"]
)
def test_a_step_is_not_led_out_of_a_local_folder(uri: str, tmp_path: Path) -> None:
    list(traversals(tmp_path))
    code, error = run("ingest", filled(INPUTS["ingest uri"][2], f"{tmp_path}/{uri}", ""), tmp_path)
    assert code == ExitCode.BAD_INPUT
    assert "which is not in the landing folder" in error


def test_a_folder_of_part_files_has_no_link_out_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "landing" / "2026-01-05.parquet"
    folder.mkdir(parents=True)
    (folder / "_SUCCESS").touch()
    (tmp_path / "secret.parquet").touch()
    (folder / "part-0.parquet").symlink_to(tmp_path / "secret.parquet")
    code, error = run("ingest", filled(INPUTS["ingest uri"][2], str(folder), ""), tmp_path)
    assert (code, error) == (ExitCode.BAD_INPUT, f"{folder}/part-0.parquet is a link out of its folder")


@pytest.mark.parametrize(
    "uri",
    [
        "s3://landing-evil/in/x.parquet",
        "s3://landing/in-evil/x.parquet",
        "s3://landing/in",
        "s3://landing/in/",
        "s3://landing/in//x.parquet",
        "s3://landing/in/../x.parquet",
        "s3://landing/in/%2E%2e/x.parquet",
        "s3://landing/in/%252e%252e/x.parquet",
        "s3://landing/in/a%2f..%2f..%2fx.parquet",
        "s3://landing/in/..\\x.parquet",
        "S3://landing/in/x.parquet",
        "s3a://landing/in/x.parquet",
        "s3://landing@evil/in/x.parquet",
        "s3://user:password@landing/in/x.parquet",
        "gs://landing/in/x.parquet",
        "/etc/passwd",
        "file:///landing/in/x.parquet",
    ],
)
def test_nothing_leads_out_of_a_folder_in_an_object_store(uri: str) -> None:
    for root in ("s3://landing/in", "s3://landing/in/"):
        assert storage.lies_in("s3://landing/in/x.parquet", root)
        assert storage.lies_in("s3://landing/in/card_payments/2026-01-05_100%.parquet", root)
        assert not storage.lies_in(uri, root)


def test_a_step_is_not_led_into_another_bucket(tmp_path: Path) -> None:
    given = filled(INPUTS["ingest uri"][2], "s3://landing-evil/x.parquet", "")
    code, error = run("ingest", given, tmp_path, CT_LANDING_URI="s3://landing")
    assert code == ExitCode.BAD_INPUT
    assert "uri is 's3://landing-evil/x.parquet', which is not in the landing folder s3://landing" in error


# --- every step's declaration ---


def fields(annotation: Any, at: str, marked: bool = False) -> Iterator[tuple[str, bool]]:
    """(path of a field, whether it is marked with its folder) for each text in the type `annotation`."""
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        yield from fields(inner, at, marked or any(isinstance(mark, LiesIn) for mark in marks))
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            own = any(isinstance(mark, LiesIn) for mark in field.metadata)
            yield from fields(field.annotation, f"{at} {name}" if at.count(" ") < 1 else f"{at}.{name}", own)
    elif annotation is str:
        yield at, marked
    else:
        for each in get_args(annotation):
            yield from fields(each, at, marked)


def test_every_uri_that_a_step_takes_is_declared_with_its_folder_and_tested_here() -> None:
    places: dict[str, bool] = {}
    for name, spec in STEPS.items():
        places |= {at: marked for at, marked in fields(spec.inputs, name) if A_PLACE.search(at) or marked}
    assert [at for at, marked in places.items() if not marked] == [], "use LandedUri or WorkUri"
    assert {at.replace(".0", "") for at in INPUTS} == set(places)


def test_uris_are_found_at_any_depth() -> None:
    class Inner(BaseModel):
        uri: WorkUri | None = None

    class Inputs(BaseModel):
        one: list[WorkUri]
        two: dict[str, Inner]
        plain: str = "x"

    found = dict(state_uris(Inputs.model_validate({"one": ["a", "b"], "two": {"k": {"uri": "c"}, "l": {}}})))
    assert found == {"one.0": "a", "one.1": "b", "two.k.uri": "c"}
    assert all(isinstance(uri, StateUri) and uri.folder == "work" for uri in found.values())
    assert {at for at, marked in fields(Inputs, "step") if marked} == {"step one", "step two.uri"}
