"""A search in parts: the step search runs each, and train fits the best of all."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from tests.steps.search_place import MODEL, SEARCH, Place
from tests.steps.training_rows import write_dataset
from training.adapters.onnx_model import OnnxModel
from training.contract.errors import DataContractError, InputError
from training.contract.messages import FailedPart, SearchResult, TrainInputs, TrainResult
from training.fit_job import FitJob

# Some tests start processes that import MLflow.

ESTIMATOR = "hist_gradient_boosting"
#: Three trials and two.
IN_PARTS = {**SEARCH, "trials": 5, "parallel": 2}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_dataset(tmp_path_factory.mktemp("search") / "dataset")


@pytest.fixture
def place(tmp_path: Path, dataset: str, mlflow_database: Path) -> Place:
    return Place(tmp_path, dataset, mlflow_database, IN_PARTS)


@pytest.fixture(scope="module")
def searched(
    tmp_path_factory: pytest.TempPathFactory, dataset: str, mlflow_database: Path
) -> tuple[Place, list[SearchResult]]:
    """Both parts, the second one first."""
    place = Place(tmp_path_factory.mktemp("parts"), dataset, mlflow_database, IN_PARTS)
    second = place.search(1)
    return place, [place.search(0), second]


@pytest.fixture(scope="module")
def trained(searched: tuple[Place, list[SearchResult]]) -> TrainResult:
    place, found = searched
    return place.train_with(*found)


def trials(place: Place, run_id: str) -> list[tuple[Any, ...]]:
    """Of each trial of a part its name, parameters, metrics and state."""
    children = place.children(run_id)
    return [(c.info.run_name, c.data.params, c.data.metrics, c.data.tags["state"]) for c in children]


def found(part: int, value: float, **fields: Any) -> SearchResult:
    given = {"estimator": ESTIMATOR, "part": part, "run_id": "0" * 32, "trial": 0, "summary": "made up"}
    return SearchResult.model_validate({**given, "parameters": {"max_iter": 2 + 2 * part}, "value": value, **fields})


def parameters(result: TrainResult) -> dict[str, Any]:
    return dict(OnnxModel.load(Path(result.artifact_uri)).metadata.parameters)


def test_the_trials_are_divided_and_each_part_searches_elsewhere(searched: tuple[Place, list[SearchResult]]) -> None:
    place, parts = searched
    assert [part.part for part in parts] == [0, 1]
    first, second = (trials(place, part.run_id) for part in parts)
    assert [name for name, *_ in first] == ["trial-0000", "trial-0001", "trial-0002"]
    assert [name for name, *_ in second] == ["trial-0000", "trial-0001"]
    tried = [frozenset(params.items()) for _, params, *_ in [*first, *second]]
    assert len(set(tried)) == 5
    for part, of_part in zip(parts, (first, second), strict=True):
        values = {name: metrics.get("average_precision", 0) for name, _, metrics, _ in of_part}
        assert max(values, key=lambda name: values[name]) == f"trial-{part.trial:04d}"
        assert part.value == pytest.approx(max(values.values()))
        assert place.run(part.run_id).data.tags["search_part"] == str(part.part)
    assert place.journals() == []


def test_the_run_says_what_search_and_fit_took(searched: tuple[Place, list[SearchResult]]) -> None:
    place, parts = searched
    tags = place.run(place.train_with(*parts).run_id).data.tags
    of_parts = [place.run(part.run_id).data.tags for part in parts]
    for name in ("seconds", "cpu_seconds"):
        elsewhere = sum(float(each[f"search_{name}"]) for each in of_parts)
        assert 0 < elsewhere <= float(tags[f"search_{name}"]) < float(tags[f"training_{name}"])


@pytest.mark.ci
def test_a_part_proposes_the_same_whatever_the_others_do(
    searched: tuple[Place, list[SearchResult]], place: Place
) -> None:
    whole, parts = searched
    alone = place.search(1)
    assert alone.model_dump(exclude={"run_id"}) == parts[1].model_dump(exclude={"run_id"})
    assert trials(place, alone.run_id) == trials(whole, parts[1].run_id)


def test_a_part_that_is_finished_is_not_searched_again(searched: tuple[Place, list[SearchResult]]) -> None:
    place, parts = searched
    assert place.search(0) == parts[0]
    assert len(place.children(parts[0].run_id)) == 3


def test_the_best_of_all_trials_is_fitted_and_the_parts_are_shown_below_its_run(
    searched: tuple[Place, list[SearchResult]], trained: TrainResult
) -> None:
    place, parts = searched
    best = max(parts, key=lambda part: part.value)
    assert best.parameters.items() <= parameters(trained).items()
    tags = place.run(trained.run_id).data.tags
    assert tags["search_best"] == f"part {best.part}, trial-{best.trial:04d}"
    assert tags["search"] == f"part 0: {parts[0].summary}; part 1: {parts[1].summary}"
    assert {child.info.run_id for child in place.children(trained.run_id)} == {part.run_id for part in parts}
    assert place.train_with(*parts) == trained


@pytest.mark.long
def test_without_results_of_the_step_search_train_runs_the_parts_itself_and_gives_the_same(
    place: Place, trained: TrainResult
) -> None:
    result = place.train()
    assert result.digest == trained.digest
    assert sorted(len(place.children(child.info.run_id)) for child in place.children(result.run_id)) == [2, 3]
    assert place.journals() == []


@pytest.mark.long
def test_the_value_of_the_trials_decides_and_not_the_holdout(place: Place) -> None:
    good, poor = (place.search(part) for part in (0, 1))
    # One round of boosting is worse on the holdout, whatever is said of its value.
    poor = poor.model_copy(update={"parameters": {"max_iter": 1, "learning_rate": 0.0001}, "value": good.value + 0.01})
    assert parameters(place.train_with(good, poor)).items() >= poor.parameters.items()
    poor = poor.model_copy(update={"value": good.value - 0.01})
    assert parameters(place.train_with(good, poor)).items() >= good.parameters.items()


@pytest.mark.ci
def test_where_lower_values_are_better_the_lowest_is_the_best(place: Place) -> None:
    file = place.settings.models_dir / f"{MODEL}.yaml"
    spec = yaml.safe_load(file.read_text())
    spec["evaluation"]["primary"] = "log_loss"
    spec["evaluation"]["limits"]["log_loss"] = 1.0
    file.write_text(yaml.safe_dump(spec))
    parts = [place.search(part) for part in (0, 1)]
    best = min(parts, key=lambda part: part.value)
    assert best.value > 0
    assert best.parameters.items() <= parameters(place.train_with(*parts)).items()


@pytest.mark.long
def test_a_part_killed_in_mid_search_goes_on_where_it_was(
    place: Place, searched: tuple[Place, list[SearchResult]]
) -> None:
    result = SearchResult.model_validate(place.kill_and_go_on("Trial 1 of 3", 3, part=0))
    whole, parts = searched
    assert result.model_dump(exclude={"run_id"}) == parts[0].model_dump(exclude={"run_id"})
    assert trials(place, result.run_id) == trials(whole, parts[0].run_id)
    assert place.journals() == []


@pytest.mark.ci
def test_a_part_that_fails_drops_out_named(place: Place) -> None:
    part = place.search(1)
    why = [FailedPart(estimator=ESTIMATOR, part=0, why="out of memory"), FailedPart(estimator="mlp", part=1, why="no")]
    result = place.train_with(part, failed=why)
    assert part.parameters.items() <= parameters(result).items()
    tags = place.run(result.run_id).data.tags
    assert tags["search"] == f"part 0: dropped out: out of memory; part 1: {part.summary}"
    # The reason decides nothing.
    assert place.train_with(part) == result


def test_without_any_part_the_estimator_fails_and_says_why(place: Place) -> None:
    failed = [FailedPart(estimator=ESTIMATOR, part=1, why="out of memory")]
    with pytest.raises(
        DataContractError, match=r"of hist_gradient_boosting found any: part 0: it left no message; see"
    ):
        place.train_with(failed=failed)
    with pytest.raises(DataContractError, match=r"; part 1: out of memory"):
        place.train_with(found(0, 1, estimator="random_forest"), failed=failed)
    spaces = {ESTIMATOR: {"max_features": {"choices": [-1.0, -2.0]}}}
    place.write_spec({**IN_PARTS, "spaces": spaces})
    with pytest.raises(DataContractError, match=r"None of the 2 trials of the search could be measured"):
        place.search(1, max_iter=3)
    with pytest.raises(DataContractError, match=r"found any: part 0: None of the 3 trials .*; part 1: None of the 2"):
        place.train(max_iter=3)


def test_the_number_of_parts_and_those_that_dropped_out_are_part_of_the_fit(place: Place) -> None:
    def fingerprint(**given: Any) -> str:
        return FitJob.of(TrainInputs.model_validate({**place.inputs(), **given}), place.settings).fingerprint

    both = [found(0, 0.5), found(1, 0.6)]
    fits = [fingerprint(), fingerprint(searched=both), fingerprint(searched=both[1:])]
    # The order of the parts, and what other estimators found, decides nothing.
    assert fingerprint(searched=[*reversed(both), found(0, 1, estimator="mlp")]) == fits[1]
    for parallel in (1, 5):
        place.write_spec({**IN_PARTS, "parallel": parallel})
        fits.append(fingerprint())
    assert len(set(fits)) == 5


def test_mistakes_in_the_inputs(place: Place) -> None:
    with pytest.raises(InputError, match=r"no part 2 of the search for hist_gradient_boosting: .* it has 2 parts"):
        place.search(2)
    with pytest.raises(InputError, match=r"no part 0 of the search for logistic_regression: .* it has no space"):
        place.search(0, "logistic_regression")
    with pytest.raises(ValidationError, match="more than one result is of part 1"):
        TrainInputs.model_validate({**place.inputs(), "searched": [found(1, 0.5), found(1, 0.6)]})
    with pytest.raises(
        InputError, match="a result of part 3 of the search for hist_gradient_boosting, which has 2 parts"
    ):
        place.train_with(found(0, 0.5), found(3, 0.6))
