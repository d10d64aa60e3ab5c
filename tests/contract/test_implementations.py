"""Members of a kind are found by name, in their package or through an entry point, and imported one at a time."""

import sys

import pytest

from training.contract.errors import ConfigError
from training.contract.implementations import Implementations


@pytest.fixture
def shapes(tmp_path, monkeypatch):
    """Shapes by name: a package of modules, and a distribution outside of it that joins with entry points."""
    package = tmp_path / "shapes"
    (package / "shared").mkdir(parents=True)
    (package / "shared" / "__init__.py").touch()
    (package / "_drawing.py").write_text("")
    (package / "__init__.py").write_text(
        """from training.contract.implementations import Implementations
SHAPES = Implementations("flat shape", "shapes")
"""
    )
    for name, corners in (("circle", 0), ("square", 4)):
        text = f"from shapes import SHAPES\n\n@SHAPES.register({name!r})\nclass Shape:\n    corners = {corners}\n"
        (package / f"{name}.py").write_text(text)
    (package / "forgetful.py").write_text("class Shape: pass\n")
    (package / "needy.py").write_text("import a_library_that_is_not_installed\n")
    (tmp_path / "elsewhere.py").write_text("class Triangle: corners = 3\nclass Square: corners = -1\n")
    metadata = tmp_path / "elsewhere-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[perennial.flat_shape]\ntriangle = elsewhere:Triangle\nsquare = elsewhere:Square\ngone = elsewhere:Gone\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    from shapes import SHAPES

    yield SHAPES
    for name in [name for name in sys.modules if name.partition(".")[0] in ("shapes", "elsewhere")]:
        del sys.modules[name]


def test_finding_a_member_imports_it_and_no_other(shapes):
    assert shapes.find("circle").corners == 0
    assert shapes.find("circle") is shapes.find("circle")
    assert "shapes.square" not in sys.modules
    assert "shapes.needy" not in sys.modules


def test_a_package_outside_joins_with_an_entry_point(shapes):
    assert shapes.find("triangle").corners == 3


def test_an_entry_point_does_not_replace_a_member_of_the_package(shapes):
    assert shapes.find("square").corners == 4


def test_names_are_known_without_importing(shapes):
    assert shapes.names() == ["circle", "forgetful", "gone", "needy", "square", "triangle"]
    assert "circle" in shapes
    assert "triangle" in shapes
    assert "_drawing" not in shapes
    assert "shared" not in shapes
    assert not {"shapes.circle", "elsewhere"} & sys.modules.keys()


def test_an_unknown_name_is_an_error_that_lists_the_known_ones(shapes):
    with pytest.raises(ConfigError, match="no flat shape 'hexagon'") as error:
        shapes.find("hexagon")
    assert "circle, forgetful, gone, needy, square, triangle" in error.value.hint


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("needy", "a_library_that_is_not_installed"),
        ("gone", "cannot be imported"),
        ("forgetful", "shapes.forgetful registers no flat shape"),
    ],
)
def test_a_member_that_cannot_be_had_is_an_error(shapes, name, problem):
    with pytest.raises(ConfigError, match=problem):
        shapes.find(name)


def test_a_name_is_given_once():
    numbers: Implementations[int] = Implementations("number", "shapes")
    numbers.register("one")(1)
    assert numbers.find("one") == 1
    with pytest.raises(ValueError, match="Two numbers are registered as 'one'"):
        numbers.register("one")(2)
