"""The contract's pages: every message, from the registry that validates them at run time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from inspect import getdoc

from msgspec.structs import asdict
from writing import as_json, attributes_of, badges, block, code, folded, incident_links, slug, table

from chronos.contract import kinds, messages, schema, wire
from chronos.contract.wire import Endpoint, Message
from chronos.fire import jwks, verify
from chronos.nas import client as nas_client
from chronos.protocol.clocks import CLOCK_MARGIN_US
from chronos.protocol.state import NAS_TIMEOUT_IN_FIRE_US
from chronos.testing import nas

ENDPOINTS = (messages.PROVISION, messages.CANCEL, messages.LIST, messages.FIRE)
_PURPOSE = {
    messages.PROVISION: "Arm a job at one instant.",
    messages.CANCEL: "Disarm a job.",
    messages.LIST: "What is armed?",
    messages.FIRE: "The instant of an arm has come.",
}
_OF_THE_AGENT = "agent to NAS, below NAS's base URL; bearer: the agent's own access token"
_OF_NAS = "NAS to agent, below the callback URL; bearer: a fire token that NAS makes for this attempt"


def _caller(endpoint: Endpoint) -> str:
    return _OF_NAS if endpoint is messages.FIRE else _OF_THE_AGENT


# --- the page of messages ---------------------------------------------------------------------


def messages_page() -> str:
    """Return the page with every endpoint and every message."""
    parts = [
        "# Messages\n",
        "This page, the schemas and the vectors are made of the registry that validates messages at run time"
        " (`chronos/contract/messages.py`). What a message may hold is said there once.\n",
        "Readers are strict in what they know and lenient in what they do not: nothing is coerced, an"
        " optional field may be absent or `null`, and unknown fields are ignored. Writers leave an optional"
        " field out rather than send `null`.\n",
        "Downloads: [all vectors](vectors/all.json), [all schemas](schemas/all.json); each message below has"
        " its own. Take the vectors as test cases for your side: an accepted one must be read, a refused one"
        " must be answered 400 when it is a request, or taken for no answer.\n",
        "## Endpoints\n",
        table(
            ["Endpoint", "Direction and credential", "What for"],
            ([_endpoint_link(each), _caller(each), _PURPOSE[each]] for each in ENDPOINTS),
        ),
    ]
    for endpoint in ENDPOINTS:
        parts += [f"### `{endpoint.method} {endpoint.path}`\n", *_endpoint(endpoint)]
    parts += ["## What 1.1 adds\n", _newer("1.1"), "## All messages\n"]
    for cls in messages.REGISTRY:
        parts += [f"### {cls.__name__}\n", *_message(cls)]
    return "\n".join(parts)


def _endpoint_link(endpoint: Endpoint) -> str:
    text = f"{endpoint.method} {endpoint.path}"
    return f"[`{text}`](#{slug(text)})"


def _link(cls: type[Message]) -> str:
    return f"[{cls.__name__}](#{cls.__name__.lower()})"


def _endpoint(endpoint: Endpoint) -> Iterator[str]:
    yield f"{_PURPOSE[endpoint]} Direction and credential: {_caller(endpoint)}.\n"
    at = [(cls, about) for cls, about in messages.REGISTRY.items() if endpoint in about.endpoints]
    for cls, about in at:
        if about.part in (wire.Part.REQUEST, wire.Part.TOKEN):
            yield f"- {about.part.capitalize()}: {_link(cls)}"
    yield ""
    rows = [
        (status, [str(status), _link(cls), when])
        for cls, about in at
        for status, when in about.statuses.items()
    ]
    yield table(["Status", "Body", "When"], (row for _, row in sorted(rows, key=lambda each: each[0])))


def _newer(version: str) -> str:
    rows = []
    for cls, about in messages.REGISTRY.items():
        if about.since == version:
            rows.append([_link(cls), "the whole message", (cls.__doc__ or "").partition("\n")[0]])
            continue
        newer = (field for field in wire.fields_of(cls) if field.since == version)
        rows += [[_link(cls), code(field.name), field.meaning] for field in newer]
    return table(["Message", "Field", "Meaning"], rows)


def _message(cls: type[Message]) -> Iterator[str]:
    about, name = messages.REGISTRY[cls], cls.__name__
    where = (f"{endpoint.method} {endpoint.path}" for endpoint in about.endpoints)
    yield badges(about.direction, about.part, f"since {about.since}") + "\n"
    yield f"{getdoc(cls)}\n"
    yield "At: " + ", ".join(f"`{each}`" for each in where) + "\n"
    if about.statuses:
        yield table(["Status", "When"], ([str(status), when] for status, when in about.statuses.items()))
    yield table(
        ["Field", "Holds", "Required", "Meaning", "Example", "Since"],
        (
            [
                code(field.name),
                field.kind.expected,
                "yes" if field.is_required else "no",
                field.meaning,
                code(field.example if isinstance(field.example, str) else as_json(field.example)),
                field.since,
            ]
            for field in wire.fields_of(cls)
        ),
    )
    yield "An example with all fields:\n"
    yield block(as_json(schema.example(cls)), "json")
    yield folded("JSON Schema", block(as_json(schema.json_schema(cls)), "json"))
    found = schema.vectors(cls)
    rows = ([each.name, _verdict(each)] for each in found)
    yield folded(f"{len(found)} vectors", table(["Vector", "Result"], rows))
    yield f"Download: [schema](schemas/{name}.json), [vectors](vectors/{name}.json).\n"


def _verdict(vector: schema.Vector) -> str:
    if vector.refused is None:
        return "accepted"
    return f"refused for {code(vector.refused)}" if vector.refused else "refused as a whole"


def downloads() -> dict[str, str]:
    """Return the schemas and vectors as files of the site, by path."""
    files: dict[str, str] = {}
    schemas, vectors = {}, {}
    for cls in messages.REGISTRY:
        name = cls.__name__
        schemas[name] = schema.json_schema(cls)
        vectors[name] = [asdict(vector) for vector in schema.vectors(cls)]
        files[f"contract/schemas/{name}.json"] = as_json(schemas[name]) + "\n"
        files[f"contract/vectors/{name}.json"] = as_json(vectors[name]) + "\n"
    files["contract/schemas/all.json"] = as_json(schemas) + "\n"
    files["contract/vectors/all.json"] = as_json(vectors) + "\n"
    return files


# --- parts of the hand-written pages ----------------------------------------------------------


def promises_of() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return each promise of NAS with its words and the incidents that it closes."""
    found = {}
    for name, text in attributes_of(nas.Promises).items():
        match = re.fullmatch(r"(.*?) \(([A-Z]\d+(?:, [A-Z]\d+)*)\)\.", text)
        if match is None:
            raise ValueError(f"promise {name}: expected words and incidents in parentheses, got {text!r}")
        found[name] = match[1], tuple(match[2].split(", "))
    return found


def _promises() -> str:
    rows = []
    for name, (words, incidents) in promises_of().items():
        kept = ["kept" if getattr(build, name) else "not kept" for build in nas.BUILDS.values()]
        shown = f'<span id="{name}">{code(name)}</span>'
        rows.append([shown, words[:1].upper() + words[1:] + ".", *kept, incident_links(incidents, up="../")])
    return table(["Promise", "NAS promises", *nas.BUILDS, "Closes"], rows)


def _algorithms() -> str:
    return ", ".join(verify.ALGORITHMS)


def _minutes(values_us: tuple[int, ...]) -> str:
    minutes = [str(value // 60_000_000) for value in values_us]
    return ", ".join(minutes[:-1]) + f" and {minutes[-1]} minutes"


PARTS: Mapping[str, Callable[[], str]] = {
    "promises": _promises,
    "algorithms": _algorithms,
    "purpose": lambda: code(messages.PURPOSE),
    "clock_margin": lambda: f"{CLOCK_MARGIN_US // 1_000_000} s",
    "leeway": lambda: f"{verify.LEEWAY_S:g} s",
    "max_lifetime": lambda: f"{verify.MAX_LIFETIME_S // 60:g} min",
    "refetch": lambda: f"{jwks.REFETCH_EVERY_S:g} s",
    "fire_arm_timeout": lambda: f"{NAS_TIMEOUT_IN_FIRE_US // 1_000_000} s",
    "relay_timeout": lambda: f"{nas.RELAY_TIMEOUT_US // 1_000_000} s",
    "client_timeout": lambda: f"{nas_client.TIMEOUT_S:g} s",
    "retry_after": lambda: f"{messages.RETRY_AFTER_S} s",
    "sweep_delays": lambda: _minutes(nas.SWEEP_DELAYS_US),
    "max_id": lambda: str(kinds.MAX_ID_LENGTH),
    "fire_words": lambda: ", ".join(code(word.value) for word in messages.FIRE_WORDS),
}
