"""Whatever comes in from outside: one of the answers or errors that are promised, and nothing else.

A few seconds of it run every time; `CHRONOS_FUZZ=long` makes each search a hundred times as long.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chronos.contract import messages, schema, wire
from chronos.errors import JobsFileError, NasError, ScheduleError
from chronos.jobs.instants import parse_instant
from chronos.jobs.job import Unreadable
from chronos.jobs.schedule import Cron, next_after, parse_schedule
from chronos.jobs.zones import zone_of
from chronos.nas.answer import read_answer
from chronos.stores import refusal
from chronos.stores.record import FileFacts, read_document, read_history
from tests.fires import (
    AT,
    ATTACKS,
    GOOD,
    NOW_S,
    PATH,
    T0,
    World,
    fire_verifier,
    is_of_the_contract,
    nas_keys,
    run,
    token,
)

T = TypeVar("T")
E = TypeVar("E", bound=Exception)

FACTOR = 100 if os.environ.get("CHRONOS_FUZZ") == "long" else 1
FLEETS = Path(__file__).parent.parent / "simulator" / "fleets"


def searched(examples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the settings of a search with so many examples, in an everyday run."""
    slow = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
    return settings(max_examples=FACTOR * examples, deadline=None, suppress_health_check=slow)


def outcome(error: type[E], work: Callable[[], T]) -> tuple[T | None, E | None]:
    """Return what comes of *work*, or the one error that may."""
    try:
        return work(), None
    except error as raised:
        return None, raised


# --- Values -----------------------------------------------------------------------------------

instants = st.sampled_from(
    [
        AT,
        "2026-06-26T12:00:00Z",
        "2026-06-26T12:00:00.123456789+05:30",
        "2026-06-26T12:00:00",
        "2026-06-26",
        "20260626T120000Z",
        "2026-W26-5T12:00:00Z",
        "2026-06-26T24:00:00Z",
        "2026-06-26T12:00:60Z",
        "0001-01-01T00:00:00+00:00",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "9999-12-31T23:59:59.999999+00:00",
        "2026-06-26T12:00:00+05:30:15",
        "2026-06-26T12:00:00+24:00",
        "2026-06-26 12:00:00+00:00",
        "2026-06-26T12:00:00+00:00\n",
        "2026-06-26T12:00:00−00:00",
        "٢٠٢٦-06-26T12:00:00Z",
    ]
)
zones = st.sampled_from(
    [
        "UTC",
        "utc",
        "Europe/Berlin",
        "Africa/Monrovia",
        "Pacific/Apia",
        "Antarctica/Troll",
        "+05:30",
        "-23:59",
        "+24:00",
        "Nowhere/Here",
        "../../etc/passwd",
        "/etc/localtime",
        "localtime",
        "right/UTC",
        "posixrules",
        "zone.tab",
        "tzdata.zi",
        "Europe",
        "Europe/",
        "",
        " ",
        ".",
        "\0",
        "\ud83d",
        "x" * 5000,
        "a/" * 2000,
    ]
)
cron_parts = st.sampled_from(
    [
        "*",
        "0",
        "59",
        "60",
        "*/5",
        "*/0",
        "1-5",
        "5-1",
        "1,2,3",
        "L",
        "L-3",
        "15W",
        "5#2",
        "MON",
        "MON-FRI#3",
        "7",
        "31",
        "FEB",
        "?",
        "1-5/2",
        "5-5/10",
        "*/99999",
        "0-0/1",
        "jan-dec",
        "#",
        "-",
        "/",
        ",",
        "٣",
    ]
)
crons = st.lists(cron_parts, min_size=4, max_size=7).map(" ".join) | st.sampled_from(
    ["@daily", "@reboot", "@", "0 0 30 2 *", "0 0 29 2 *", "0 0 29 2 MON#5", "* " * 5, "* " * 3000]
)
spoken = st.from_regex(r"(every |in |\+)?\s*([0-9]{1,12}\s*(w|days?|h|min|s|ms)\s*){0,4}", fullmatch=True)
words = st.sampled_from(
    ["cron", "interval", "once", "scheduled", "paused", "completed", "retry", "record", "j", "accepted"]
)
whole = st.integers() | st.sampled_from([0, 1, -1, 2**53, 2**63, 10**30, 10**400, -(10**400)])
floats = st.floats() | st.sampled_from([0.5, 1e-9, 1e300, -0.0])
texts = st.text(max_size=12) | st.sampled_from(["\ud83d", "\0", "é" * 300, "x" * 3000])
leaves = st.none() | st.booleans() | whole | floats | texts | instants | zones | crons | spoken | words
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts | words, inner, max_size=4),
    max_leaves=8,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every container within *value* with each of its keys or indices."""
    found = []
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        found += [(value, key), *places(value[key])]
    return found


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """Return *value* with a few changes at random places: taken out, put in another's place, or added."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 4))):
        all_places = places(value)
        if not all_places:
            return draw(values)
        inside, key = all_places[draw(st.integers(0, len(all_places) - 1))]
        match draw(st.sampled_from(["replace", "replace", "delete", "add", "copy"])):
            case "replace":
                inside[key] = draw(values)
            case "delete":
                del inside[key]
            case "add" if isinstance(inside, dict):
                inside[draw(texts | words)] = draw(values)
            case "add":
                inside.insert(key, draw(values))
            case "copy":
                other, name = all_places[draw(st.integers(0, len(all_places) - 1))]
                if isinstance(other, dict) and name in other:
                    inside[key] = copy.deepcopy(other[name])
    return value


# --- The fire endpoint ------------------------------------------------------------------------

good_body = json.dumps(GOOD).encode()
bodies = (
    st.just(good_body)
    | st.binary(max_size=80)
    | changed(GOOD).map(lambda body: json.dumps(body).encode())
    | values.map(lambda body: json.dumps(body).encode())
    | st.sampled_from([b"[" * 60_000, b"1" * 60_000, b'"' + b"x" * 66_000, b"\xef\xbb\xbf" + good_body])
    | st.sampled_from([good_body.decode().encode(name) for name in ("utf-16", "utf-32", "utf-8-sig")])
)
header_names = st.sampled_from(
    [b"authorization", b"Authorization", b"content-type", b"content-length", b"transfer-encoding", b"x", b""]
)
header_values = st.binary(max_size=20) | st.sampled_from(
    [
        b"Bearer good",
        b"bearer good",
        b"Bearer bad",
        b"application/json",
        b"text/plain",
        b"12",
        b"-1",
        b"9" * 99,
    ]
)
tokens = st.sampled_from(["", "good", "bad", "nas", "attack", "two"])
texts_of_attacks = st.sampled_from(sorted(ATTACKS)).map(lambda name: ATTACKS[name]())
requests = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["POST", "POST", "POST", "GET", "HEAD", "OPTIONS", "post", ""]),
        "path": st.sampled_from([PATH] * 4 + [PATH + "/", "/", "", "//"]) | texts,
        "headers": st.lists(st.tuples(header_names, header_values), max_size=3),
        "body": bodies,
        "cuts": st.lists(st.integers(0, 200), max_size=4),
        "is_cut": st.booleans(),
    }
)


async def sent_to(world: World, request: dict[str, Any], bearer: str) -> httpx.Response | None:
    """Return the answer to a request, put together as an HTTP server has to; None when there is none."""
    headers = list(request["headers"])
    if bearer:
        headers.append((b"authorization", b"Bearer " + bearer.encode()))
    cuts = [0, *sorted(request["cuts"]), len(request["body"])]
    parts = [request["body"][low:high] for low, high in pairwise(cuts)]
    sent = await world.raw(
        scope={"method": request["method"], "path": request["path"]},
        headers=headers,
        parts=parts,
        is_cut=request["is_cut"],
    )
    if not sent:
        return None
    start, end = sent
    assert (start["type"], end["type"]) == ("http.response.start", "http.response.body")
    assert all(isinstance(each, bytes) for header in start["headers"] for each in header)
    length = dict(start["headers"])[b"content-length"]
    assert int(length) == len(end["body"])
    return httpx.Response(start["status"], headers=start["headers"], content=end["body"])


@searched(1000)
@given(
    requests=st.lists(requests, min_size=1, max_size=3),
    bearer=st.sampled_from(["", "good", "bad", "bug"]),
    moods=st.sets(st.sampled_from(["draining", "stopped", "nas is down"])),
)
def test_no_request_gets_an_answer_outside_the_contract(
    requests: list[dict[str, Any]], bearer: str, moods: set[str]
) -> None:
    """Any method, path, headers and bytes, to an agent in any state: a listed answer, and only when asked."""

    async def scenario() -> None:
        world = World()
        world.is_stopped, world.nas.faults.is_down = "stopped" in moods, "nas is down" in moods
        if "draining" in moods:
            await world.scheduler.drain(0)
        for request in requests:
            response = await sent_to(world, request, bearer)
            if response is None:
                assert request["is_cut"]
                continue
            assert is_of_the_contract(response)
            if (request["method"], request["path"]) != ("POST", PATH):
                assert response.status_code in (404, 405)
            elif bearer != "good" and not any(b"good" in value for _, value in request["headers"]):
                assert response.status_code == 401
        if bearer != "good" and not any(b"good" in value for r in requests for _, value in r["headers"]):
            assert world.is_untouched()
        if moods & {"draining", "stopped"}:
            assert world.is_untouched()
        await world.scheduler.drain(5)
        assert set(world.ran) <= {"j", "k"}
        assert len(world.ran) == len(set(world.ran))

    run(scenario())


@searched(300)
@given(
    request=requests,
    bearer=texts_of_attacks
    | st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40)
    | st.just("good one"),
)
def test_no_token_but_nas_own_gets_anything_done(request: dict[str, Any], bearer: str) -> None:
    """Together with any request; and a good one is told from them by its signature alone."""

    async def scenario() -> None:
        world = World(verifier=fire_verifier(*nas_keys()))
        is_good = bearer == "good one"
        response = await sent_to(world, request, token(iat=NOW_S) if is_good else bearer)
        if response is not None:
            assert is_of_the_contract(response)
            assert is_good or response.status_code in (401, 404, 405)
        assert is_good or world.is_untouched()
        await world.scheduler.drain(5)

    run(scenario())


# --- The jobs file ----------------------------------------------------------------------------


def reads_or_refuses(text: str, now_us: int | None) -> None:
    """Read a jobs file, and what is read of it later; only `JobsFileError` may come of it."""
    document, error = outcome(JobsFileError, lambda: read_document(text, source="jobs.json", now_us=now_us))
    if document is None:
        assert str(error).startswith("jobs.json")
        assert str(error).isprintable()
        return
    for job, record in zip(document.records, document.raw["jobs"], strict=True):
        if isinstance(job, Unreadable):
            assert str(refusal(job)).startswith("jobs.json: job ")
            assert str(refusal(job)).isprintable()
            continue
        assert job.id == record["id"]
        outcome(JobsFileError, lambda record=record: read_history(record, FileFacts(source="jobs.json")))


nows = st.none() | st.sampled_from([T0, 0])


@searched(300)
@given(text=st.text() | values.map(json.dumps), now_us=nows)
@example(text="[" * 100_000, now_us=None)
@example(text='{"jobs": ' * 5000, now_us=None)
@example(text='{"jobs": [], "updated_at": ' + "9" * 5000 + "}", now_us=None)
@example(text='{"jobs": [1e999]}', now_us=None)
@example(text="\ufeff{}", now_us=None)
def test_any_text_is_a_jobs_file_or_refused(text: str, now_us: int | None) -> None:
    """With where and what is wrong with it."""
    reads_or_refuses(text, now_us)


def fleets() -> st.SearchStrategy[dict[str, Any]]:
    """Return the real fleets, each cut to some of its jobs, which get what the scheduler adds."""

    def cut(fleet: dict[str, Any], which: list[int]) -> dict[str, Any]:
        jobs = fleet["jobs"]
        kept = [copy.deepcopy(jobs[index % len(jobs)]) for index in which] if jobs else []
        for index, job in enumerate(kept):
            job["id"] = f"job-{index}"
            job["chronos"] = copy.deepcopy(OWN)
        return {**fleet, "jobs": kept}

    read = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(FLEETS.glob("*.json"))]
    return st.builds(cut, st.sampled_from(read), st.lists(st.integers(0, 30), min_size=1, max_size=3))


OWN = {
    "revision": 3,
    "anchor": AT,
    "tz": "UTC",
    "run": {
        "occurrence": AT,
        "attempt": 1,
        "owner": "me",
        "claimed": AT,
        "lease_until": AT,
        "origin": "schedule",
    },
    "history": [{"occurrence": AT, "result": "completed", "reason": "done", "at": AT, "count": 1}],
}


@searched(1200)
@given(fleet=fleets().flatmap(changed), now_us=nows)
def test_a_changed_fleet_is_read_or_refused(fleet: Any, now_us: int | None) -> None:
    """Real jobs files with a few things taken out, added, or put in each other's place."""
    reads_or_refuses(json.dumps(fleet), now_us)


def test_the_fleets_themselves_are_read() -> None:
    """So that what is changed is worth changing."""
    for path in FLEETS.glob("*.json"):
        assert read_document(path.read_text(encoding="utf-8"), source=path.name).jobs is not None


# --- The messages -----------------------------------------------------------------------------


@pytest.mark.parametrize("cls", messages.REGISTRY, ids=lambda cls: cls.__name__)
@searched(60)
@given(data=st.data())
def test_any_json_is_a_message_or_refused(cls: type[wire.Message], data: st.DataObject) -> None:
    """What is accepted is the same when it is sent on."""
    raw = json.loads(json.dumps(data.draw(values | changed(schema.example(cls)))))
    message, error = outcome(wire.RemoteMessageError, lambda: wire.decode(cls, raw))
    if error is not None:
        assert error.message == cls.__name__
        assert str(error).encode()
        return
    assert wire.decode(cls, wire.encode(message)) == message
    assert json.dumps(wire.encode(message), allow_nan=False)


answers = (
    st.binary(max_size=60)
    | values.map(lambda body: json.dumps(body).encode())
    | st.sampled_from(list(messages.REGISTRY))
    .flatmap(lambda cls: changed(schema.example(cls)))
    .map(lambda body: json.dumps(body).encode())
    | st.sampled_from([b"[" * 100_000, b"1" * 5000, b"null", b""])
)


@searched(400)
@given(
    status=st.integers(100, 599) | st.sampled_from([200, 204, 401, 403, 409, 429, 500, 503]),
    retry_after=st.none() | st.text(max_size=8) | st.sampled_from(["10", "-1", "1e3", "9" * 400, "٣"]),
    body=answers,
    reads=st.sampled_from([messages.ProvisionResponse, messages.CancelResponse, messages.ListResponse]),
)
def test_any_answer_of_nas_is_a_message_or_an_error(
    status: int, retry_after: str | None, body: bytes, reads: type[wire.Message]
) -> None:
    """Which says whether the effect definitely did not happen."""
    headers = {} if retry_after is None else {"retry-after": retry_after}
    message, error = outcome(NasError, lambda: read_answer(status, headers, body, reads))
    if error is None:
        assert isinstance(message, reads)
        assert 200 <= status < 300
    else:
        assert isinstance(error.definite, bool)
        assert str(error).isprintable()


# --- What people write ------------------------------------------------------------------------


@searched(800)
@given(text=texts | instants | crons | spoken | st.text(), tz=zones, now_us=st.integers(-(2**60), 2**60))
def test_any_text_is_a_schedule_or_refused(text: str, tz: str, now_us: int) -> None:
    """What is accepted has a next slot, or none, and is the same schedule in the next process."""
    schedule, error = outcome(ScheduleError, lambda: parse_schedule(text, now_us=now_us, tz=tz))
    if schedule is None:
        assert str(error)
        return
    slot = next_after(schedule, now_us)
    assert slot is None or slot > now_us
    if isinstance(schedule, Cron):
        assert Cron(expr=schedule.expr, tz=schedule.tz) == schedule


@searched(400)
@given(st.text(max_size=40) | instants | values)
def test_any_text_is_an_instant_or_refused(text: Any) -> None:
    """Whatever a JSON reader returned."""
    instant_us, error = outcome(ScheduleError, lambda: parse_instant(text))
    assert (type(instant_us) is int) != bool(str(error or ""))


@searched(300)
@given(st.text(max_size=40) | zones | values)
def test_any_text_is_a_time_zone_or_refused(text: Any) -> None:
    """Paths and devices among them."""
    zone, error = outcome(ScheduleError, lambda: zone_of(text))
    assert (zone is not None) != bool(str(error or ""))
