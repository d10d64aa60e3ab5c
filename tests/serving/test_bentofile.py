"""The bento holds every module that the service imports. tests/compose/test_image_modules.py looks at the images."""

from pathlib import Path

import grimp
import pathspec
import yaml

from training.settings import ROOT


def test_the_bento_holds_every_module_that_the_service_imports() -> None:
    graph = grimp.build_graph("serving", "training")
    modules = {"serving.service", *graph.find_upstream_modules("serving.service")}
    include = yaml.safe_load((ROOT / "serving" / "bentofile.yaml").read_text())["include"]
    included = pathspec.PathSpec.from_lines("gitignore", include)
    files = [Path(*module.split(".")) for module in modules]
    files = [path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py") for path in files]
    assert len(files) > 50
    assert [str(path) for path in files if (ROOT / path).is_file() and not included.match_file(path)] == []
