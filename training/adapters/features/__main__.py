"""`python -m training.adapters.features`: Feast's `apply`, for the definitions of every model.

Before the first step runs, a feature store that the `feast` command and its UI can look at; steps keep it up to date.
"""

import logging

from training.adapters.features import Features
from training.contract.model_spec import load_model_spec, model_names
from training.settings import load_settings


def main() -> None:
    """Raises ConfigError for a model whose definitions do not fit its spec."""
    settings = load_settings()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(message)s")
    for name in model_names(settings.models_dir):
        Features(settings, load_model_spec(name, settings.models_dir)).publish()


if __name__ == "__main__":
    main()
