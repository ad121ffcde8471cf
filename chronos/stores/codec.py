"""Jobs and outcomes as JSON documents, for stores that keep one document of each.

A document follows the fields of its class, whatever they are: it needs no change here when a class
gains one. A document of an earlier version lacks the newer fields, which then have their defaults;
one of a later version has keys that nobody here knows, and is refused rather than read in part.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn_from_attrs, make_dict_unstructure_fn_from_attrs
from cattrs.preconf.json import make_converter
from msgspec import NODEFAULT, Struct, structs

# Which of several classes a value is of. None of them has a field of that name.
_KIND = "kind"

_Value = TypeVar("_Value")


class DocumentError(ValueError):
    """A document and a value that do not belong together; the message says what is wrong, and where."""


def encode(value: object) -> str:
    """Return the one document of *value*: sorted keys, no spaces, nothing but ASCII.

    Args:
        value: a job, an outcome, or any other struct or value of attrs classes.

    Raises:
        DocumentError: no document reads as this value, such as one with a number that is not a number,
            or with both halves of a surrogate pair apart, which JSON joins.
    """
    try:
        document = json.dumps(
            _converter(False).unstructure(value), sort_keys=True, separators=(",", ":"), allow_nan=False
        )
        if decode(type(value), document) == value:
            return document
    except (TypeError, ValueError) as error:
        raise DocumentError(f"no document reads as {value}: {error}") from None
    raise DocumentError(f"no document reads as {value}")


def decode(kind: type[_Value], document: str) -> _Value:
    """Return the value that *document* is.

    Args:
        kind: the class of the value.
        document: what `encode` returned, in this version or another.

    Raises:
        DocumentError: it is not JSON, lacks a field that has no default, has a key that is no field,
            or has a value that its field does not take.
    """
    try:
        raw = json.loads(document)
    except (TypeError, ValueError, RecursionError) as error:
        raise DocumentError(f"expected JSON: {error}") from None
    try:
        return _converter(False).structure(raw, kind)
    except Exception:  # noqa: BLE001 - whatever it was, it is asked for again in words
        return _explained(kind, raw)


def _explained(kind: type[_Value], raw: Any) -> _Value:
    """Read *raw* slowly, for the sake of the message that says what is wrong with it."""
    try:
        return _converter(True).structure(raw, kind)
    except Exception as error:  # noqa: BLE001 - as above; the classes may refuse a value as they like
        problems = cattrs.transform_error(error, path="document", format_exception=_words)
        raise DocumentError("; ".join(problems)) from None


def _words(error: BaseException, _: type | None) -> str:
    if isinstance(error, KeyError):
        return "this key is missing"
    if isinstance(error, AttributeError):
        return "expected an object"
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        return f"nobody knows the key {', '.join(sorted(error.extra_fields))}"
    return str(error)


@lru_cache(maxsize=2)
def _converter(is_detailed: bool) -> cattrs.Converter:
    """Return what turns values into JSON and back; the detailed one says where it fails, and takes longer."""
    converter = make_converter(forbid_extra_keys=True, detailed_validation=is_detailed)
    for plain in (bool, int, float, str):
        converter.register_structure_hook(plain, _exactly(plain))
    converter.register_structure_hook_factory(
        _is_struct,
        lambda kind: make_dict_structure_fn_from_attrs(_fields(kind), kind, converter),
    )
    converter.register_unstructure_hook_factory(
        _is_struct, lambda kind: make_dict_unstructure_fn_from_attrs(_fields(kind), kind, converter)
    )
    converter.register_structure_hook_factory(
        _is_choice_of_values, lambda union: _choice_reader(union, converter)
    )
    converter.register_unstructure_hook_factory(
        _is_choice_of_values, lambda union: _choice_writer(union, converter)
    )
    return converter


def _exactly(plain: type) -> Callable[[Any, Any], Any]:
    """Return what takes a value of that type and no other; of an enumeration, the value of a member."""

    def check(value: Any, kind: Any) -> Any:
        if type(value) is not plain:
            raise ValueError(f"expected {plain.__name__}, got {value!r}")
        return value if kind is plain else kind(value)

    return check


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Struct)


def _fields(kind: type[Struct]) -> Any:
    """Return the fields of a struct, as a class of attrs would have them."""
    hints = get_type_hints(kind)
    described = {
        field.name: attrs.field(
            default=attrs.NOTHING if field.default is NODEFAULT else field.default,
            type=hints[field.name],
        )
        for field in structs.fields(kind)
    }
    return attrs.fields(attrs.make_class(kind.__name__, described, kw_only=True))


def _is_choice_of_values(kind: Any) -> bool:
    """Return whether a field of type *kind* takes values of several classes."""
    if get_origin(kind) not in (Union, types.UnionType):
        return False
    members = _members(kind)
    return len(members) > 1 and all(attrs.has(member) or _is_struct(member) for member in members)


def _members(union: Any) -> list[type]:
    return [member for member in get_args(union) if member is not type(None)]


def _name(member: type) -> str:
    return member.__name__.lower()


def _choice_reader(union: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    members = {_name(member): member for member in _members(union)}

    def read(raw: Any, _: Any) -> Any:
        if raw is None and type(None) in get_args(union):
            return None
        if not isinstance(raw, dict) or raw.get(_KIND) not in members:
            raise ValueError(f"expected an object whose {_KIND} is one of {', '.join(members)}")
        return converter.structure({key: raw[key] for key in raw if key != _KIND}, members[raw[_KIND]])

    return read


def _choice_writer(union: Any, converter: cattrs.Converter) -> Callable[[Any], Any]:
    members = _members(union)

    def write(value: Any) -> Any:
        if value is None:
            return None
        if type(value) not in members:
            raise TypeError(f"expected one of {', '.join(map(_name, members))}, got {value!r}")
        return {_KIND: _name(type(value)), **converter.unstructure(value)}

    return write
