"""The images of other projects that docker-compose.yaml names."""

import os
import re

import yaml

from training.settings import ROOT

_DEFAULT = re.compile(r"\$\{(\w+):-(.+)\}")


def official_image(service: str) -> str:
    """The image of a Compose service: its variable's value, where that is set, else the default."""
    image: str = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"][service]["image"]
    named = _DEFAULT.fullmatch(image)
    return image if named is None else os.environ.get(named[1]) or named[2]
