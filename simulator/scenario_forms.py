"""The keys of a scenario's file: the form of each of its tables, with the type and the words of each key.

The reader, the JSON schema and the documents are made of them.
"""

from __future__ import annotations

import re
import tomllib
import typing
from collections.abc import Iterator
from datetime import date, datetime, time
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from chronos.cli.options import expected
from chronos.errors import ChronosError
from simulator.scenario import MAX_DAYS

# What a count of the summary shall be: 3, ">=1".
COUNT = re.compile("^(>=|<=|==) ?[0-9]{1,9}$")
Count = (
    Annotated[int, Meta(ge=0)] | Annotated[str, Meta(pattern=COUNT.pattern, description="such as >=1, <=5")]
)
COUNTS = ("fires", "refused", "wakes", "wakes_for_nothing", "provision", "cancel", "list")


class _Form(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file."""


class JobForm(_Form, frozen=True, kw_only=True):
    """A job: `[[job]]`."""

    id: Annotated[str, Meta(description="its id")]
    schedule: Annotated[str, Meta(description="as people write it: `0 2 * * *`, `30m`, an instant")]
    tz: Annotated[str, Meta(description="the time zone of a cron expression")] = "UTC"
    times: Annotated[int, Meta(ge=1, description="after how many occurrences it stops")] | None = None
    policy: Annotated[dict[str, Any], Meta(description="as in a jobs file")] = field(default_factory=dict)


class FaultForm(_Form, frozen=True, kw_only=True):
    """A fault that strikes at its time: `[[fault]]`."""

    what: Annotated[str, Meta(description="its name; `route` for the machine to which a request goes")]
    at: Annotated[datetime, Meta(tz=True, description="from when on it strikes what comes next")]
    how: Annotated[str, Meta(description="in which way, where there are several")] = ""
    job: Annotated[str, Meta(description="what is struck; without it, a machine")] | None = None
    machine: Annotated[int, Meta(ge=0, description="of several machines, which one")] | None = None
    number: Annotated[int, Meta(ge=1, description="of those that come next, which one")] = 1


class DeedForm(_Form, frozen=True, kw_only=True):
    """Something that somebody does at its time: `[[change]]`."""

    do: Annotated[str, Meta(description="what")]
    at: Annotated[datetime, Meta(tz=True, description="when")]
    job: Annotated[str, Meta(description="to which job")] | None = None
    machine: Annotated[int, Meta(ge=0, description="of several machines, to which one")] | None = None
    lasts: Annotated[str, Meta(description="for how long, such as 1h30m")] = ""
    schedule: Annotated[str, Meta(description="of an edit")] = ""
    off: Annotated[str, Meta(description="of a clock, how far ahead: +1h, -40s")] = ""
    purpose: Annotated[str, Meta(description="of a fire, what its token is for, with `wire`")] = ""
    names: Annotated[datetime, Meta(tz=True, description="of a fire, the instant that it names")] | None = (
        None
    )


class ExpectForm(_Form, frozen=True, kw_only=True):
    """What is expected of an agent: `[[expect]]`."""

    agent: Annotated[str, Meta(description="of which agent")] = "chronos"
    nas: Annotated[str, Meta(description="with which NAS, where it is another one")] = ""
    wire: Annotated[str, Meta(description="with all that ships and this store: memory, json, sqlite")] = ""
    violates: Annotated[list[str], Meta(description="the properties that are violated; none: all hold")] = (
        field(default_factory=list)
    )
    runs: Annotated[dict[str, Count], Meta(description="how many occurrences end with a result")] = field(
        default_factory=dict
    )
    jobs: Annotated[dict[str, dict[str, Count]], Meta(description="the same, of a job")] = field(
        default_factory=dict
    )
    counts: Annotated[dict[str, Count], Meta(description=", ".join(COUNTS))] = field(default_factory=dict)
    raises: Annotated[bool, Meta(description="whether it raises exceptions")] = False


class Form(_Form, frozen=True, kw_only=True):
    """A scenario."""

    about: Annotated[str, Meta(description="what it shows, in a sentence", min_length=1)]
    incident: Annotated[str, Meta(description="the incident that it shows")] = ""
    fleet: Annotated[str, Meta(description="a shipped fleet, or a jobs file beside this one")] = ""
    start: Annotated[datetime, Meta(tz=True, description="where the calendar begins")] | None = None
    days: Annotated[int, Meta(ge=1, le=MAX_DAYS, description="how long it lasts")]
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1, description="of what is left to chance")] = 0
    faults: Annotated[Literal["none", "light", "heavy"], Meta(description="what goes wrong by chance")] = (
        "none"
    )
    nas: Annotated[str, Meta(description="minimal, hardened, or without:PROMISE,...")] = "hardened"
    machines: Annotated[int, Meta(ge=1, le=16, description="how many share the store")] = 1
    policies: Annotated[Literal["own", "random"], Meta(description="whose policies the jobs have")] = "own"
    agent: Annotated[str, Meta(description="the agent, where nothing is expected of any")] | None = None
    conditions: Annotated[
        dict[str, Any], Meta(description="the options of `run` with their values: outage, boot, run, ...")
    ] = field(default_factory=dict)
    job: Annotated[
        list[JobForm], Meta(description="jobs of its own: each has an id, a schedule and policies")
    ] = field(default_factory=list)
    fault: Annotated[list[FaultForm], Meta(description="what strikes at its time")] = field(
        default_factory=list
    )
    change: Annotated[list[DeedForm], Meta(description="what somebody does at its time")] = field(
        default_factory=list
    )
    expect: Annotated[
        list[ExpectForm], Meta(description="what is expected of an agent; of none: whatever comes of it")
    ] = field(default_factory=list)


TABLES: dict[str, type[Struct]] = {
    "job": JobForm,
    "fault": FaultForm,
    "change": DeedForm,
    "expect": ExpectForm,
}


class ScenarioError(ChronosError):
    """A scenario's file cannot be what its author meant; the text says where, and what was expected."""

    def __init__(self, source: str, key: str, problem: str) -> None:
        super().__init__(": ".join(part for part in (source, key, problem) if part))


def schema() -> dict[str, Any]:
    """Return the JSON schema of a scenario."""
    return msgspec.json.schema(Form)


def form_of(source: str, text: str) -> Form:
    """Return the form that *text* fills in, TOML of the file *source*.

    Raises:
        ScenarioError: it is no TOML, or a key or a value is none of the form.
    """
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ScenarioError(source, "", f"not TOML: {error}") from None
    for key, problem in (*_misnamed(raw), *_miscounted(raw)):
        raise ScenarioError(source, key, problem)
    try:
        return msgspec.convert(raw, Form)
    except msgspec.ValidationError as error:
        raise ScenarioError(source, *_told(raw, error)) from None


def _tables(raw: dict[str, Any], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the tables of that name, each with its key."""
    tables = raw.get(name)
    for number, each in enumerate(tables if isinstance(tables, list) else (), 1):
        if isinstance(each, dict):
            yield f"{name}[{number}]", each


def _misnamed(raw: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each key that there is not, with what was expected."""
    forms: list[tuple[str, dict[str, Any], type[Struct]]] = [("", raw, Form)]
    for name, kind in TABLES.items():
        forms += [(f"{place}.", each, kind) for place, each in _tables(raw, name)]
    for place, given, kind in forms:
        names = [each.name for each in msgspec.structs.fields(kind)]
        for key in given:
            if key not in names:
                yield f"{place}{key}", f"there is no key {expected(key, names)}"


def _miscounted(raw: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each expected count that is none; what is no table is told with the other types."""
    for place, each in _tables(raw, "expect"):
        tables = {f"{place}.{name}": each.get(name) for name in ("runs", "counts")}
        jobs = each.get("jobs")
        for job_id, runs in jobs.items() if isinstance(jobs, dict) else ():
            tables[f"{place}.jobs.{job_id}"] = runs
            if not isinstance(runs, dict):
                yield f"{place}.jobs.{job_id}", f"expected a table of counts, got {_shown(runs)}"
        for key, counts in tables.items():
            for name, value in counts.items() if isinstance(counts, dict) else ():
                if not _is_count(value):
                    yield f"{key}.{name}", f'expected a count such as 3, ">=1" or "<=5", got {_shown(value)}'


def _is_count(value: object) -> bool:
    if isinstance(value, str):
        return COUNT.fullmatch(value) is not None
    return type(value) is int and 0 <= value < 2**63


_INSTANT = "an instant with its offset, such as 2026-03-02T02:00:00Z"
_TYPES = {
    "int": "a whole number",
    "str": "text",
    "bool": "true or false",
    "datetime": _INSTANT,
    "array": "a list",
    "object": "a table",
}


def _told(raw: dict[str, Any], error: msgspec.ValidationError) -> tuple[str, str]:
    """Return the key of what is refused, and why, in the words of TOML."""
    text, _, where = str(error).partition(" - at `$")
    key, value, kind, name = "", typing.cast(Any, raw), typing.cast(Any, Form), ""
    for each, number in re.findall(r"\.(\w+)|\[(\d+)\]", where):
        key += f"[{int(number) + 1}]" if number else f".{each}"
        value = value[int(number) if number else each]
        kind, name = TABLES.get(each, kind), each or name
    key = key.removeprefix(".")
    missing = re.search("missing required field `(\\w+)`", text)
    if missing is not None:
        words = description_of(kind, missing[1])
        return f"{key}.{missing[1]}".removeprefix("."), f"expected {words}; it is missing"
    if name in TABLES and not isinstance(value, dict) and not key.endswith("]"):
        return key, f"expected tables, each under [[{name}]], got {_shown(value)}"
    if isinstance(value, dict) and name in TABLES and not key.endswith("]"):
        return key, f"expected [[{name}]], with two brackets, got a table"
    if "enum" in text:
        return key, f"there is no {expected(str(value), choices_of(kind, name))}"
    if "atetime" in text:
        return key, f"expected {_INSTANT}, got {_shown(value)}"
    found = re.search(r"Expected `(\w+)[^`]*`(?: of length)?( (?:>=|<=) \d+)?", text)
    if found is None:
        return key, f"{text[:1].lower()}{text[1:]}, got {_shown(value)}"
    bound = ", not an empty one" if " of length" in text else found[2] or ""
    return key, f"expected {_TYPES.get(found[1], found[1])}{bound}, got {_shown(value)}"


def _shown(value: object) -> str:
    """Return a value of TOML in words."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    return repr(value)


def description_of(kind: type[Struct], name: str) -> str:
    """Return the words of a key."""
    metas = typing.get_type_hints(kind, include_extras=True)[name]
    return next((each.description for each in _metas(metas) if each.description), name)


def choices_of(kind: type[Struct], name: str) -> tuple[str, ...]:
    """Return the values that a key may have, where they are words of a list."""
    hint = typing.get_type_hints(kind)[name]
    return typing.get_args(hint)


def _metas(hint: Any) -> Iterator[Meta]:
    yield from (each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Meta))
    for each in typing.get_args(hint):
        yield from _metas(each)
