"""What is made of the messages for whoever writes the other side: JSON schemas and example vectors.

Both come from what validates the messages at run time, so that they cannot disagree with it.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from chronos.contract.wire import Field, Message, brief, fields_of


def json_schema(cls: type[Message]) -> dict[str, Any]:
    """Return the schema of a message, JSON Schema 2020-12.

    It accepts what `decode` accepts, save for three rules that a schema cannot say: that the day and
    hour of an instant exist, that a dedup key repeats two other fields, and that text is valid UTF-8.
    """
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | _object_schema(cls)


def _object_schema(cls: type[Message]) -> dict[str, Any]:
    fields = fields_of(cls)
    return {
        "title": cls.__name__,
        "description": (cls.__doc__ or "").split("\n\n")[0],
        "type": "object",
        "properties": {field.name: _field_schema(field) for field in fields},
        "required": [field.name for field in fields if field.is_required],
    }


def _field_schema(field: Field) -> dict[str, Any]:
    rule = dict(field.kind.schema)
    if field.kind.item is not None:
        rule["items"] = _object_schema(field.kind.item)
    if not field.is_required:
        rule["type"] = [rule["type"], "null"]
    return rule | {"description": field.meaning, "examples": [field.example]}


def example(cls: type[Message]) -> dict[str, Any]:
    """Return the example of a message, with all of its fields, as JSON has it."""
    return {field.name: field.example for field in fields_of(cls)}


class Vector(Struct, frozen=True, kw_only=True):
    """One example of what `decode` reads or refuses, for whoever writes the other side.

    Attributes:
        message: the name of the message.
        name: what the vector shows.
        data: as JSON has it.
        refused: the field for which it is refused, or empty for the data as a whole; None when it is
            accepted.
    """

    message: str
    name: str
    data: object
    refused: str | None = None


def vectors(cls: type[Message]) -> tuple[Vector, ...]:
    """Return examples of *cls*, accepted and refused: at least one for each rule of each field."""
    whole, fields = example(cls), fields_of(cls)
    least = {field.name: field.example for field in fields if field.is_required}
    nulls: dict[str, Any] = {field.name: None for field in fields if not field.is_required}

    def vector(name: str, data: object, refused: str | None = None) -> Vector:
        return Vector(message=cls.__name__, name=name, data=data, refused=refused)

    found = [
        vector("complete", whole),
        vector("an unknown field is ignored", whole | {"of_a_later_version": 1}),
    ]
    if nulls:
        found += [vector("required fields alone", least), vector("null reads as absent", least | nulls)]
    no_objects: tuple[object, ...] = ([], "text", None)
    found += [vector(f"{brief(data)} in place of an object", data, "") for data in no_objects]
    for field in fields:
        if field.is_required:
            without = {name: value for name, value in whole.items() if name != field.name}
            found.append(vector(f"without {field.name}", without, field.name))
        for wrong in (*field.kind.wrong, *(() if field.name in nulls else (None,))):
            found.append(vector(f"{field.name} is {brief(wrong)}", whole | {field.name: wrong}, field.name))
    return tuple(found)
