"""What steps hand to each other, under `settings.work`.

A step works in plain folders under `settings.scratch`. Where `settings.work` is an object store that is only its own
disk, and what others need is shared.
"""

from pathlib import Path

from training import storage
from training.settings import Settings


def share(settings: Settings, folder: Path) -> str:
    """The URI under `settings.work` of `folder`, which lies under `settings.scratch`; copied there if need be.

    Raises TransientError when the store does not answer, ConfigError when it refuses us.
    """
    uri = storage.join(settings.work, folder.relative_to(settings.scratch).as_posix())
    if storage.is_remote(uri):
        storage.upload(folder, uri)
    return uri
