"""The wire messages: what is read, what is refused, and that the schemas say the same."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronos.contract import kinds, messages
from chronos.contract.messages import REGISTRY
from chronos.contract.schema import Vector, example, json_schema, vectors
from chronos.contract.wire import (
    MAX_INTEGER,
    LocalMessageError,
    Message,
    Part,
    RemoteMessageError,
    decode,
    encode,
    fields_of,
)
from chronos.jobs.instants import SECOND_US, format_instant
from chronos.jobs.job import Verdict
from chronos.protocol.flow_effects import Answer
from chronos.values import evolve

CLASSES = tuple(REGISTRY)
VECTORS = [
    pytest.param(cls, vector, id=f"{vector.message}: {vector.name}"[:80])
    for cls in CLASSES
    for vector in vectors(cls)
]

ids = st.text(
    st.characters(min_codepoint=32, exclude_characters="\x7f", exclude_categories=["Cs"]),
    min_size=1,
    max_size=200,
)
moments = st.integers(0, 4 * 10**15).map(format_instant)
seconds = st.integers(0, 4 * 10**9).map(lambda second: format_instant(second * SECOND_US))
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50)
wholes = st.integers(0, MAX_INTEGER)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "job_id": ids,
    "fire_at": moments,
    "agent_callback_url": st.just("https://agent.example/base"),
    "revision": wholes,
    "ok": st.booleans(),
    "status": st.sampled_from([word.value for word in messages.FIRE_WORDS]),
    "purpose": st.just("cron_fire"),
    "exp": wholes | st.floats(0, 1e12),
    "iat": wholes,
    "nbf": wholes,
}


def built(cls: type[Message]) -> st.SearchStrategy[Message]:
    """Return a strategy of messages of *cls*."""
    fields: dict[str, st.SearchStrategy[Any]] = {}
    for field in fields_of(cls):
        if field.name == "dedup_key":
            continue
        value = VALUES.get(field.name, texts)
        if field.name == "error" and cls is messages.StaleRevisionResponse:
            value = st.just("stale_revision")
        if field.kind is kinds.WHOLE_SECOND:
            value = seconds
        if field.kind.item is not None:
            value = st.lists(built(field.kind.item), max_size=3).map(tuple)
        fields[field.name] = value if field.is_required else st.none() | value
    return st.builds(cls, **fields)


every_message = st.one_of([built(cls) for cls in CLASSES])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


def follows(schema: dict[str, Any], value: object) -> bool:
    """Return whether *value* follows *schema*: the keywords that the messages use, and no other."""
    known = {"$schema", "title", "description", "examples", "format", "type", "properties", "required"}
    known |= {"items", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum"}
    assert set(schema) <= known
    types = {
        "object": lambda: isinstance(value, dict),
        "array": lambda: isinstance(value, list),
        "string": lambda: isinstance(value, str),
        "boolean": lambda: isinstance(value, bool),
        "integer": lambda: type(value) is int,
        "number": lambda: type(value) in (int, float),
        "null": lambda: value is None,
    }
    allowed = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(types[each]() for each in allowed):
        return False
    match value:
        case dict():
            return set(schema["required"]) <= set(value) and all(
                follows(rule, value[name]) for name, rule in schema["properties"].items() if name in value
            )
        case list():
            return all(follows(schema["items"], item) for item in value)
        case str():
            is_word = value in schema.get("enum", [value])
            is_long_enough = schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
            pattern = schema.get("pattern", "").removeprefix("^").removesuffix("$")
            return is_word and is_long_enough and (not pattern or re.fullmatch(pattern, value) is not None)
        case bool() | None:
            return True
        case int() | float():
            return bool(schema["minimum"] <= value <= schema["maximum"])
    raise AssertionError(value)


def reads(cls: type[Message], data: object) -> bool:
    try:
        decode(cls, data)
    except RemoteMessageError:
        return False
    return True


@given(every_message)
def test_a_message_survives_encoding_and_decoding(message: Message) -> None:
    """What is encoded, written as JSON and read again is the same message."""
    assert decode(type(message), json.loads(json.dumps(encode(message)))) == message


@given(every_message)
def test_an_encoded_message_has_no_null_and_follows_its_schema(message: Message) -> None:
    """Optional fields that are None are left out, and the rest is what the schema says."""
    data = encode(message)
    assert None not in data.values()
    assert follows(json_schema(type(message)), data)


@pytest.mark.parametrize(("cls", "vector"), VECTORS)
def test_a_vector_is_read_or_refused_as_it_says(cls: type[Message], vector: Vector) -> None:
    """Every example of the contract holds at run time, and a refusal names the field."""
    if vector.refused is None:
        decode(cls, vector.data)
        return
    with pytest.raises(RemoteMessageError) as caught:
        decode(cls, vector.data)
    assert (caught.value.field, caught.value.error_status_hint) == (vector.refused, 400)
    assert "expected" in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(("cls", "vector"), VECTORS)
def test_a_schema_agrees_with_decode_on_every_vector(cls: type[Message], vector: Vector) -> None:
    """The schema accepts what is read and nothing else, save for what no schema can say."""
    beyond_schemas = vector.refused == "dedup_key" or "2026-13-01" in vector.name
    assert follows(json_schema(cls), vector.data) == reads(cls, vector.data) or beyond_schemas


@given(cls=st.sampled_from(CLASSES), noise=json_values, data=st.data())
def test_a_schema_agrees_with_decode_on_noise(cls: type[Message], noise: object, data: st.DataObject) -> None:
    """One field at a time replaced by anything: both sides read it or both refuse it."""
    field = data.draw(st.sampled_from(fields_of(cls)))
    noisy = example(cls) | {field.name: noise}
    if field.name != "dedup_key":
        assert follows(json_schema(cls), noisy) == reads(cls, noisy)
    assert follows(json_schema(cls), noise) == reads(cls, noise)


def test_every_message_is_described() -> None:
    """Each message has a sentence, each field a meaning, an example that holds, and a version."""
    for cls, about in REGISTRY.items():
        assert cls.__doc__ is not None
        assert cls.__doc__.split("\n")[0].endswith(".")
        assert about.endpoints
        assert (about.part is Part.RESPONSE) == bool(about.statuses)
        for field in fields_of(cls):
            assert field.meaning.endswith(".")
            assert field.since in ("1.0", "1.1")
        decode(cls, example(cls))


def test_only_optional_fields_were_added_to_the_messages_of_the_first_version() -> None:
    """Who speaks contract 1.0 can read and be read by who speaks 1.1."""
    for cls, about in REGISTRY.items():
        for field in fields_of(cls):
            assert field.since == about.since or not field.is_required


@pytest.mark.parametrize(
    "spelled", ["2026-06-26T12:00:00+00:00", "2026-06-26T12:00:00Z", "2026-06-26T14:00:00+02:00"]
)
def test_a_dedup_key_is_the_exact_text(spelled: str) -> None:
    """The three spellings of one instant make three keys: nothing re-spells the text."""
    request = messages.ProvisionRequest(job_id="a:b", fire_at=spelled, agent_callback_url="https://a.example")
    assert request.dedup_key == messages.dedup_key("a:b", spelled) == f"a:b:{spelled}"


@pytest.mark.parametrize(
    "job_id",
    ["", "x" * 201, "a\x00b", "half \ud83d", None, 7],
    ids=["empty", "long", "control", "half", "none", "int"],
)
def test_a_message_that_breaks_a_rule_cannot_be_made(job_id: Any) -> None:
    """What would be refused by the other side is refused before it is sent, as this side's error."""
    with pytest.raises(LocalMessageError, match=r"CancelRequest\.job_id"):
        messages.CancelRequest(job_id=job_id)


def test_a_half_of_a_surrogate_pair_is_refused() -> None:
    """JSON can carry it, but no store and no socket can."""
    with pytest.raises(RemoteMessageError, match="job_id"):
        decode(messages.CancelRequest, json.loads('{"job_id": "\\ud83d"}'))


def test_the_place_of_an_error_within_a_list_is_named() -> None:
    """The message says which entry is wrong."""
    good = example(messages.Armed)
    with pytest.raises(RemoteMessageError, match=r"ListResponse\.armed\[1\]\.job_id is absent"):
        decode(messages.ListResponse, {"armed": [good, {"fire_at": "x", "schedule_id": "y"}]})


def test_a_row_that_is_spelled_in_its_own_way_does_not_hide_the_others() -> None:
    """The list is read although one `fire_at` is no instant."""
    odd = example(messages.Armed) | {"fire_at": "soon"}
    assert decode(messages.ListResponse, {"armed": [odd]}).armed[0].fire_at == "soon"


SETTLED = Answer(job_id="job-7", verdict=Verdict.ACCEPTED, reason="claimed", settled=True)


@pytest.mark.parametrize(
    ("verdict", "status"),
    [
        (Verdict.ACCEPTED, 202),
        (Verdict.DUPLICATE, 200),
        (Verdict.GONE, 200),
        (Verdict.SKIPPED, 200),
        (Verdict.MISSED, 200),
        (Verdict.STOPPED, 200),
    ],
)
def test_a_settled_fire_is_answered_with_its_word(verdict: Verdict, status: int) -> None:
    """202 when a run starts, 200 when there is none; NAS need not come back."""
    answer = messages.answer_to_fire(evolve(SETTLED, verdict=verdict))
    assert (answer.status, answer.retry_after_s) == (status, None)
    assert answer.body == messages.FireAnswer(status=verdict.value, job_id="job-7", reason="claimed")


@pytest.mark.parametrize("verdict", [None, Verdict.LOST, *messages.FIRE_WORDS])
def test_an_unsettled_fire_is_answered_503(verdict: Verdict | None) -> None:
    """Whatever became of the run, NAS must come back to finish the arm."""
    answer = messages.answer_to_fire(evolve(SETTLED, verdict=verdict, settled=False))
    assert (answer.status, answer.retry_after_s) == (503, messages.RETRY_AFTER_S)
    assert isinstance(answer.body, messages.ErrorResponse)


def test_a_verdict_that_answers_no_fire_is_a_bug() -> None:
    """The words of other flows never go out."""
    with pytest.raises(ValueError, match="answers no fire"):
        messages.answer_to_fire(evolve(SETTLED, verdict=Verdict.LOST))
