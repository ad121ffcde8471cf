"""All that ships, in simulated time: its history is that of the model, to the last byte."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import asdict

from chronos.fire import webhook
from chronos.nas import client
from chronos.values import evolve
from simulator import faults
from simulator.fleet import Fleet, load_shipped
from simulator.marks import Where, never_met
from simulator.scenario import Plan, simulate
from simulator.summary import Summary
from simulator.wire import STORES

FLEETS = ("fleet-02", "fleet-06", "fleet-07", "fleet-09", "fleet-11", "fleet-12")
# Each group is one test, so that the groups are spread over the cores.
GROUPS, SEEDS_OF_A_GROUP = 20, 10


def drawn(seed: int) -> Plan:
    """Return a scenario by chance, with everything going wrong."""
    chance = random.Random(f"scenario {seed}")
    whole = load_shipped(chance.choice(FLEETS))
    jobs = tuple(job for job in whole.jobs if job.next_us is not None)
    fleet: Fleet = evolve(whole, jobs=tuple(chance.sample(jobs, min(len(jobs), chance.randint(1, 6)))))
    return Plan(
        scenario="drawn",
        fleet=fleet,
        days=chance.randint(1, 2),
        faults="heavy",
        nas=chance.choice(("hardened", "hardened", "minimal")),
        agent="chronos",
        machines=chance.choice((1, 1, 2, 3)),
        policies=chance.choice(("own", "random")),
    )


def both(plan: Plan, seed: int, store: str = "memory") -> tuple[Summary, Summary]:
    """Return what comes of a plan as a model, and with all that ships."""
    return simulate(plan, seed), simulate(evolve(plan, wire=store), seed)


def same(summary: Summary) -> dict[str, Any]:
    """Return the summary without the count of events: a loop has more of them than a model."""
    return asdict(evolve(summary, events=0))


@pytest.mark.parametrize("group", range(GROUPS))
def test_history_of_what_ships_is_that_of_the_model(group: int) -> None:
    """In 200 scenarios by chance: fleets, replicas, policies, and everything that can go wrong."""
    for seed in range(group * SEEDS_OF_A_GROUP, (group + 1) * SEEDS_OF_A_GROUP):
        model, wired = both(drawn(seed), seed)
        assert same(wired) == same(model), seed


@pytest.mark.parametrize("store", STORES[1:])
@pytest.mark.parametrize("seed", range(6))
def test_history_is_the_same_whatever_the_store(store: str, seed: int) -> None:
    """What is read is what was written: the store checks each job against what it was given."""
    model, wired = both(drawn(seed), seed, store)
    assert same(wired) == same(model)


def test_all_that_ships_runs_without_the_extra_of_a_store_that_is_not_used() -> None:
    """The extra `simulator` brings no database."""
    code = (
        "import sys\nsys.modules['sqlalchemy'] = None\nfrom simulator.command_line import main\n"
        "sys.exit(main(['run', 'quiet-month', '--days', '1', '--wire']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "verdict    ok" in done.stdout


# --- a differing byte ------------------------------------------------------------------------

QUIET = evolve(drawn(3), faults="none", machines=1, nas="hardened", policies="own")


def _replaced(old: bytes, new: bytes) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(arguments: dict[str, Any]) -> dict[str, Any]:
        content = arguments["content"]
        return arguments if content is None else {**arguments, "content": content.replace(old, new)}

    return change


def _other(name: str, old: str, new: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda arguments: {**arguments, name: str(arguments[name]).replace(old, new)}


SENT: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "the second of an instant": _replaced(b":00+00:00", b":01+00:00"),
    "the callback URL": _replaced(b"https://agent", b"https://agenu"),
    "the name of a field": _replaced(b'"revision"', b'"revisioo"'),
    "a quotation mark": _replaced(b'"job_id"', b'job_id"'),
    "the path": _other("url", "/provision", "/provisioo"),
    "the method": _other("method", "POST", "POSU"),
    "the token": lambda arguments: {
        **arguments,
        "headers": {**arguments["headers"], "Authorization": "Bearer x"},
    },
    "the content type": lambda arguments: {
        **arguments,
        "headers": {**arguments["headers"], "Content-Type": "application/jsoo"},
    },
}


@pytest.mark.parametrize("what", SENT)
def test_one_differing_byte_of_the_client_is_noticed(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is in, even where nothing else goes wrong."""
    model, wired = both(QUIET, 0)
    assert same(wired) == same(model)
    made = client._Client._arguments
    monkeypatch.setattr(client._Client, "_arguments", lambda *given: SENT[what](made(*given)))
    assert simulate(evolve(QUIET, wire="memory"), 0).digest != model.digest


ANSWERED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "the status of an answer": (
        "_respond",
        lambda respond: lambda send, answer, headers: respond(send, evolve(answer, status=503), headers),
    ),
    "the path": (
        "_paths_of",
        lambda paths_of: lambda scope: tuple(f"{path}/" for path in paths_of(scope)),
    ),
    "the name of a header": (
        "_header",
        lambda header: (
            lambda headers, name: header(headers, name.replace(b"authorization", b"authorizatioo"))
        ),
    ),
    "the instant of a fire": (
        "_read",
        lambda read: lambda headers, body: read(headers, body.replace(b"+00:00", b"+00:0o")),
    ),
    "the name of a field": (
        "_read",
        lambda read: lambda headers, body: read(headers, body.replace(b'"job_id"', b'"job_ie"')),
    ),
}


@pytest.mark.parametrize("what", ANSWERED)
def test_one_differing_byte_of_the_endpoint_is_noticed(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what it reads, and of what it answers."""
    model = simulate(QUIET, 0)
    name, change = ANSWERED[what]
    monkeypatch.setattr(webhook, name, change(getattr(webhook, name)))
    assert simulate(evolve(QUIET, wire="memory"), 0).digest != model.digest


# --- what a wire can do, and a model cannot ---------------------------------------------------


def test_what_a_wire_spoils_loses_nothing() -> None:
    """Torn bodies, pages of proxies, other content types and old tokens: each is met, and survived."""
    met: set[str] = set()
    for seed in range(12):
        plan = evolve(drawn(seed), nas="hardened", wire="memory", has_wire_faults=True)
        summary = simulate(plan, seed)
        assert summary.verdict == "ok", (seed, summary.violations[:1])
        met |= summary.marks.keys()
    assert never_met(met, Where.WIRE) == []


def test_model_has_no_faults_of_the_wire() -> None:
    """Switched on, they change nothing where nothing is spelled out."""
    table = faults.weights("heavy", 1, of_wire=True)
    assert set(table) - set(faults.weights("heavy", 1)) <= set(faults.WIRE_FAULTS)
    plan = drawn(5)
    assert simulate(evolve(plan, has_wire_faults=True), 5) == simulate(plan, 5)
