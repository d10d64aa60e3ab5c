"""What the tests of several steps share, made once: it takes a quarter of a minute."""

import pytest

from tests.steps.watched import World, build


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("watched"))
