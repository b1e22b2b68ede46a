"""What is wrong with a value; and that a schema from a kernel can't hold the host up."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Annotated

import pytest
from pydantic import BaseModel, Field, field_validator

from rlm_kernel.errors import ConfigError
from rlm_kernel.shapes import MOST_FAULTS, Faulty, guest_shape, read, shape_of

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "year": {"type": "integer", "minimum": 1800}},
    "required": ["name", "year"],
}


class Person(BaseModel):
    name: str
    year: Annotated[int, Field(ge=1800)]
    born: datetime.date | None = None

    @field_validator("name")
    @classmethod
    def known(cls, name: str) -> str:
        if name == "Nobody":
            raise ValueError("nobody of this name")
        return name


@pytest.mark.parametrize("output", [PERSON, Person], ids=["schema", "pydantic"])
def test_a_value_that_will_do_and_two_that_will_not(output):
    shape = shape_of(output)
    assert shape.schema["required"] == ["name", "year"]
    assert shape.faults({"name": "Ada", "year": 1815}) == ()
    assert "$.year" in shape.faults({"name": "Ada", "year": "soon"})[0]
    assert "year" in shape.faults({"name": "Ada"})[0]


def test_faults_are_exact_and_few():
    shape = shape_of({"type": "array", "items": {"type": "integer"}})
    assert shape.faults([1, "two"]) == ("$[1]: 'two' is not of type 'integer'",)
    assert len(shape.faults(["x"] * 100)) == MOST_FAULTS + 1
    assert all(len(fault) <= 300 for fault in shape.faults(["x" * 10_000]))


def test_a_pydantic_type_is_revived_and_its_own_rules_count():
    shape = shape_of(Person)
    assert shape.revive({"name": "Ada", "year": 1815, "born": "1815-12-10"}) == Person(
        name="Ada", year=1815, born=datetime.date(1815, 12, 10)
    )
    assert shape.faults({"name": "Nobody", "year": 1900}) == ("$.name: Value error, nobody of this name",)
    people = shape_of(list[Person])
    assert people.faults([{"name": "Ada", "year": 1}])[0].startswith("$[0].year: ")
    assert people.revive([{"name": "Ada", "year": 1815}]) == [Person(name="Ada", year=1815)]


def test_dataclasses_and_plain_types_are_shapes_too():
    @dataclasses.dataclass
    class Point:
        x: int
        y: int

    assert shape_of(Point).revive({"x": 1, "y": 2}) == Point(1, 2)
    assert shape_of(int).faults("three") != ()


@pytest.mark.parametrize(
    "output",
    [{"type": "no such type"}, {"properties": []}, "string", ["string"], 3, {"default": object()}, print],
)
def test_what_is_no_shape_is_refused(output):
    with pytest.raises(ConfigError) as caught:
        shape_of(output)
    assert caught.value.hint


@pytest.mark.parametrize(
    "reply",
    [
        '{"name": "Ada", "year": 1815}',
        '```json\n{"name": "Ada", "year": 1815}\n```',
        '\n```\n{"name": "Ada",\n "year": 1815}\n```\n',
        '<think>{"name": 1}</think>\n{"name": "Ada", "year": 1815}',
    ],
)
def test_json_is_found_in_a_reply(reply):
    assert read(reply, shape_of(PERSON)) == {"name": "Ada", "year": 1815}


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        ("Ada, born in 1815", "it is no JSON: Expecting value"),
        ("", "it is no JSON"),
        ("[" * 100_000, "it is no JSON"),
        ('{"name": "Ada"}', "'year' is a required property"),
        ('{"name": "Ada", "year": 18', "it is no JSON"),
    ],
)
def test_what_is_none_is_told(reply, fault):
    with pytest.raises(Faulty) as caught:
        read(reply, shape_of(PERSON))
    assert fault in str(caught.value)


def test_text_stands_for_itself_where_text_is_asked_for():
    shape = shape_of({"type": "string"})
    assert read('"quoted"', shape) == "quoted"
    assert read("as it is", shape) == "as it is"


def test_nothing_is_fetched_for_a_schema():
    shape = guest_shape({"$ref": "http://127.0.0.1:9/schema.json"})
    assert "can't be checked" in shape.faults(1)[0]


def test_references_within_a_schema_work():
    tree = {"$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}, "$ref": "#/$defs/tree"}
    for shape in (shape_of(tree), guest_shape(tree)):
        assert shape.faults([[], [[]]]) == ()
        assert shape.faults([[], [3]]) == ("$[1][0]: 3 is not of type 'array'",)


def doubling(levels: int) -> dict:
    """A schema whose check takes 2 to the power of ``levels`` steps."""
    schemas = {f"s{n}": {"allOf": [{"$ref": f"#/$defs/s{n + 1}"}] * 2} for n in range(levels)}
    return {"$defs": {**schemas, f"s{levels}": {"type": "integer"}}, "$ref": "#/$defs/s0"}


@pytest.mark.parametrize(
    ("schema", "value", "fault"),
    [
        (doubling(40), 1, "too many steps"),
        ({"$ref": "#"}, 1, "nests too deeply"),
        ({"items": {"enum": list(range(10_000))}}, [9_999] * 10_000, "too many steps"),
        ({"uniqueItems": True}, [{"n": n} for n in range(20_000)] + [{"n": 0}], "non-unique"),
        ({"pattern": "^(a+)+$"}, "a" * 40 + "!", None),
    ],
    ids=["doubling", "endless", "long enum", "unique", "pattern"],
)
def test_a_schema_from_a_kernel_can_not_hold_the_host_up(schema, value, fault):
    faults = guest_shape(schema).faults(value)  # without the bounds this takes years
    if fault is None:
        assert faults == ()
    else:
        assert fault in faults[0]


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"type": 3}, "$.type"),
        ({"patternProperties": {"(a+)+$": {}}}, "patternProperties"),
        ({"enum": ["x" * 200_000]}, "characters"),
    ],
)
def test_a_schema_from_a_kernel_may_be_refused(schema, fault):
    with pytest.raises(Faulty) as caught:
        guest_shape(schema)
    assert fault in str(caught.value)


def test_a_schema_nested_without_end_is_refused():
    schema: dict = {}
    for _ in range(100_000):
        schema = {"not": schema}
    with pytest.raises(Faulty):
        guest_shape(schema)
