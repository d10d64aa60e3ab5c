"""Field docstrings are the descriptions in JSON Schemas."""

from training.contract.base import Frozen
from training.contract.docstrings import field_docstrings
from training.contract.source_sections import LabelSpec
from training.contract.spec_file import SpecFile
from training.contract.spec_sections import MonitoringSpec


class Base(Frozen):
    first: int
    """Of the base class."""


class Nested(Frozen):
    inner: int
    """Inside,
    on two lines."""


class Derived(Base):
    second: int = 2
    third: Nested
    """Of the derived class."""


def test_docstrings_of_a_class_and_its_bases():
    from_training = field_docstrings(LabelSpec)
    assert from_training["delay_days"].startswith("Days after the event within which")
    assert "title" not in field_docstrings(SpecFile)  # It has none.
    assert field_docstrings(Frozen) == {}


def test_schemas_describe_fields_of_nested_models_too():
    schema = MonitoringSpec.model_json_schema()
    assert schema["properties"]["minimum_rows"]["description"] == field_docstrings(MonitoringSpec)["minimum_rows"]
    nested = Derived.model_json_schema()
    assert nested["properties"]["first"]["description"] == "Of the base class."
    assert nested["properties"]["third"]["description"] == "Of the derived class."
    assert "description" not in nested["properties"]["second"]
    assert nested["$defs"]["Nested"]["properties"]["inner"]["description"] == "Inside,\non two lines."
