"""What a model was made of, kept with its MLflow run so that it can be made again."""

from typing import Any

from training.contract.base import Frozen
from training.contract.messages.training import DatasetInputs

#: The artifact of the run.
RECIPE_FOLDER, RECIPE_FILE = "recipe", "recipe.json"


class Recipe(Frozen):
    """All that decides the dataset and the fit, and where both were made."""

    model_spec: str
    """The content of training/models/<model>.yaml."""
    source_spec: str
    """The content of feature_repo/<source>.yaml."""
    dataset: DatasetInputs
    """Complete: with a snapshot, a window and a seed."""
    tables: dict[str, str | None]
    """Table → the id that it got when it was created."""
    files: dict[str, str] = {}
    """Table → digest of the names and contents of all files of its version. Empty in a recipe of an earlier version."""
    definitions: str
    """Digest of the feature definitions (definitions_digest)."""
    fit: dict[str, Any]
    """The inputs of the step `train` but for the dataset. Its parameters are those that the model was fitted with,
    also when a search found them."""
    code: str
    """Digest of the source that fits (fitting_digest)."""
    libraries: dict[str, str]
    """Every installed distribution → its version."""
    sbom: str = ""
    """SHA-256 of sbom.cdx.json beside the recipe, the bill of materials. Empty in a recipe of an earlier version."""
    machine: dict[str, str]
    """`python`, its version; `platform`, the system and its processor; `cores`, how many of them the process may use;
    `device`, what the model was fitted on."""
    threads: dict[str, str] = {}
    """Environment variables that divide sums among as many threads as the fit did. Empty in a recipe of an earlier
    version."""
    git_sha: str | None = None
    image: str | None = None
