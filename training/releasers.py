"""Who may decide what serves: roll back, force a training, approve a version."""

from training.contract.errors import InputError
from training.settings import StateSettings


def check_releaser(act: str, user: str, settings: StateSettings) -> None:
    """Raises InputError when CT_RELEASERS names users and `user`, whom Airflow knows, is not one of them.

    `act`: what the user wants, as in "roll a model back".
    """
    allowed = [name.strip() for name in settings.releasers.split(",") if name.strip()]
    if allowed and user not in allowed:
        hint = f"CT_RELEASERS names who may: {', '.join(allowed)}. One of them must do it."
        raise InputError(f"{user or 'A run that no user started'} may not {act}", hint)
