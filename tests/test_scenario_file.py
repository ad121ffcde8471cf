"""A scenario's file that cannot be meant is refused in one line: which file, which key, what was expected."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import NoneType
from typing import Any

import pytest

from chronos.jobs.schedule import Cron
from simulator.__main__ import main
from simulator.scenario_file import MAX_BYTES, folder, load, names
from simulator.scenario_forms import schema

# A scenario of everything, in which nothing is wrong.
WHOLE = """
about = "an edit while a message is lost"
incident = "L6"
days = 3
start = 2026-03-02T00:00:00Z
seed = 1
faults = "none"
nas = "hardened"
machines = 2
policies = "own"

[conditions]
boot = "2s"
run = ["6s", "nightly=7s"]

[[job]]
id = "nightly"
schedule = "0 2 * * *"
policy = { misfire_grace_seconds = 3600, ends_at = 2026-03-04T23:00:00Z }

[[job]]
id = "other"
schedule = "30 4 * * *"
tz = "Europe/Berlin"
times = 9

[[fault]]
what = "network.request"
at = 2026-03-03T01:00:00Z
how = "lost"
job = "nightly"
number = 2

[[change]]
do = "edit"
at = 2026-03-03T12:00:00Z
job = "other"
schedule = "0 6 * * *"

[[change]]
do = "stop"
at = 2026-03-04T12:00:00Z
lasts = "20m"

[[expect]]
agent = "chronos"
runs = { completed = ">=1" }
counts = { fires = ">=1" }
jobs = { nightly = { completed = ">=1" } }
"""
JOB = '[[job]]\nid = "a"\nschedule = "0 2 * * *"\n'
SMALL = f'about = "x"\ndays = 3\n{JOB}'
START = "2026-03-02T00:00:00Z"


def fault(**keys: str) -> str:
    """Return the small scenario with a fault."""
    return SMALL + "[[fault]]\n" + lines(at="2026-03-02T01:00:00Z", **keys)


def change(**keys: str) -> str:
    """Return the small scenario with somebody who does something."""
    return SMALL + "[[change]]\n" + lines(**{"at": "2026-03-02T01:00:00Z", **keys})


def expect(**keys: str) -> str:
    """Return the small scenario with something that is expected."""
    return SMALL + "[[expect]]\n" + lines(**keys)


def lines(**keys: str) -> str:
    return "".join(f"{key} = {value}\n" for key, value in keys.items())


def top(**keys: str) -> str:
    """Return the small scenario with other keys."""
    return lines(**{"about": '"x"', "days": "3", **keys}) + JOB


def asked(**keys: str) -> str:
    """Return the small scenario with conditions."""
    return SMALL + "[conditions]\n" + lines(**keys)


def job(**keys: str) -> str:
    """Return a scenario with a job that has other keys."""
    return 'about = "x"\ndays = 3\n[[job]]\n' + lines(**{"id": '"a"', "schedule": '"0 2 * * *"', **keys})


# Each with the key that its line names, and words of it.
BAD: dict[str, tuple[str, str, list[str]]] = {
    # not TOML, or nothing of it
    "not TOML": ("about =", "", ["not TOML", "at end of document"]),
    "nested too deep": ("a = " + "[" * 100_000, "", ["not TOML"]),
    "a number without end": ("days = " + "9" * 5000, "", ["not TOML"]),
    "empty": ("", "about", ["missing", "what it shows"]),
    "a key twice": ('about = "x"\nabout = "y"', "", ["not TOML"]),
    # what is missing
    "no days": (f'about = "x"\n{JOB}', "days", ["missing"]),
    "no jobs and no fleet": ('about = "x"\ndays = 3', "fleet", ["[[job]]", "neither"]),
    "jobs and a fleet": (top(fleet='"fleet-01"'), "fleet", ["[[job]]", "both"]),
    "no id": ('about = "x"\ndays = 3\n[[job]]\nschedule = "0 2 * * *"', "job[1].id", ["missing"]),
    "no schedule": ('about = "x"\ndays = 3\n[[job]]\nid = "a"', "job[1].schedule", ["missing"]),
    "no at": (SMALL + '[[fault]]\nwhat = "nas.create"', "fault[1].at", ["missing"]),
    "no what": (SMALL + f"[[fault]]\nat = {START}", "fault[1].what", ["missing"]),
    "no do": (SMALL + f"[[change]]\nat = {START}", "change[1].do", ["missing"]),
    # keys that there are not
    "key": (top(dyas="3"), "dyas", ["did you mean days?"]),
    "key of a job": (job(shedule='"x"'), "job[1].shedule", ["did you mean schedule?"]),
    "key of a policy": (
        job(policy="{ catch_ups = 'all' }"),
        "job[1].policy.catch_ups",
        ["did you mean catch_up?"],
    ),
    "key of a fault": (fault(whta='"nas.create"'), "fault[1].whta", ["did you mean what?"]),
    "key of a change": (change(doo='"kill"'), "change[1].doo", ["did you mean do?"]),
    "key of an expectation": (expect(violate="[]"), "expect[1].violate", ["did you mean violates?"]),
    "condition": (asked(boots='"2s"'), "conditions.boots", ["did you mean boot?"]),
    "help": (asked(help='"2s"'), "conditions.help", ["there is no key 'help'"]),
    # types
    "days of text": (top(days='"3"'), "days", ["a whole number", "'3'"]),
    "days that are true": (top(days="true"), "days", ["a whole number", "true"]),
    "days that are broken": (top(days="1.5"), "days", ["a whole number", "1.5"]),
    "no days at all": (top(days="0"), "days", ["a whole number", ">= 1", "0"]),
    "a century and more": (top(days="40000"), "days", ["<= 36525"]),
    "days beyond all": (top(days="9" * 30), "days", ["9" * 30]),
    "seed below 0": (top(seed="-1"), "seed", [">= 0", "-1"]),
    "about is empty": (top(about='""'), "about", ["text", "not an empty one"]),
    "about is a list": (top(about="[]"), "about", ["text", "a list"]),
    "machines": (top(machines="17"), "machines", ["<= 16"]),
    "level": (top(faults='"hevy"'), "faults", ["'hevy'", "did you mean heavy?"]),
    "level of another type": (top(faults="3"), "faults", ["3"]),
    "policies": (top(policies='"any"'), "policies", ["own, random"]),
    "a table of jobs": ('about = "x"\ndays = 3\n[job]\nid = "a"', "job", ["[[job]]", "two brackets"]),
    "jobs are text": ('about = "x"\ndays = 3\njob = "a"', "job", ["[[job]]", "'a'"]),
    "a job is text": ('about = "x"\ndays = 3\njob = ["a"]', "job[1]", ["a table", "'a'"]),
    "conditions are a list": (top(conditions="[]"), "conditions", ["a table", "a list"]),
    "expectations are a number": (top(expect="3"), "expect", ["[[expect]]", "3"]),
    "violates is text": (expect(violates='"NO-OVERLAP"'), "expect[1].violates", ["a list"]),
    "violates numbers": (expect(violates="[3]"), "expect[1].violates[1]", ["text", "3"]),
    "runs are a list": (expect(runs="[]"), "expect[1].runs", ["a table", "a list"]),
    "runs of a job are a number": (expect(jobs="{ a = 3 }"), "expect[1].jobs.a", ["3"]),
    "raises is text": (expect(raises='"no"'), "expect[1].raises", ["true or false", "'no'"]),
    "number": (fault(what='"nas.create"', job='"a"', number="0"), "fault[1].number", [">= 1"]),
    # instants
    "start without an offset": (top(start="2026-03-02T00:00:00"), "start", ["offset", "2026-03-02T00:00:00"]),
    "start is a date": (top(start="2026-03-02"), "start", ["offset", "2026-03-02"]),
    "start is a time": (top(start="02:00:00"), "start", ["offset", "02:00:00"]),
    "start is text": (top(start='"yesterday"'), "start", ["offset", "'yesterday'"]),
    "start before time": (top(start="0001-01-01T00:00:00Z"), "start", ["1970"]),
    "end after time": (top(start="9899-12-31T00:00:00Z"), "start", ["9900"]),
    "change without an offset": (change(do='"kill"', at="2026-03-03T00:00:00"), "change[1].at", ["offset"]),
    "change before the deployment": (change(do='"kill"', at=START), "change[1].at", ["00:05:00", "calendar"]),
    "change after the end": (change(do='"kill"', at="2026-03-05T00:00:00Z"), "change[1].at", ["calendar"]),
    "fault after the end": (
        SMALL + "[[fault]]\n" + lines(what='"nas.create"', job='"a"', at="2026-03-05T00:00:00Z"),
        "fault[1].at",
        ["calendar", "2026-03-05"],
    ),
    "fault before the start": (
        SMALL + "[[fault]]\n" + lines(what='"nas.create"', job='"a"', at="2026-03-01T00:00:00Z"),
        "fault[1].at",
        ["calendar", "2026-03-01"],
    ),
    "names before time": (
        change(do='"fire"', job='"a"', names="1969-01-01T00:00:00Z"),
        "change[1].names",
        ["1970"],
    ),
    "names within a second": (
        change(do='"fire"', job='"a"', names="2026-03-03T02:00:00.5Z"),
        "change[1].names",
        ["whole seconds"],
    ),
    # jobs
    "two jobs of an id": (SMALL + JOB, "job[2].id", ["'a'", "another"]),
    "an empty id": (job(id='""'), "job[1].id", []),
    "an id of two lines": (job(id='"a\\nb"'), "job[1].id", []),
    "schedule": (job(schedule='"61 * * * *"'), "job[1].schedule", ["61"]),
    "schedule that never comes": (job(schedule='"0 0 30 2 *"'), "job[1].schedule", ["no date ever matches"]),
    "time zone": (job(tz='"Europe/Berln"'), "job[1].tz", ["did you mean Europe/Berlin?"]),
    "times": (job(times="0"), "job[1].times", [">= 1"]),
    "grace": (
        job(policy='{ misfire_grace_seconds = "soon" }'),
        "job[1].policy.misfire_grace_seconds",
        ["soon"],
    ),
    "key of a retry": (
        job(policy="{ retry = { attempt = 2 } }"),
        "job[1].policy.retry.attempt",
        ["attempts?"],
    ),
    "an end without an offset": (
        job(policy="{ ends_at = 2026-03-03T00:00:00 }"),
        "job[1].policy.ends_at",
        ["offset"],
    ),
    "policy of another type": (job(policy="3"), "job[1].policy", ["a table", "3"]),
    # what surrounds them
    "fleet": ('about = "x"\ndays = 3\nfleet = "fleet-1"', "fleet", ["'fleet-1'", "did you mean"]),
    "fleet that is no file": ('about = "x"\ndays = 3\nfleet = "no.json"', "fleet", ["no.json"]),
    "NAS": (top(nas='"hardend"'), "nas", ["did you mean hardened?"]),
    "promise": (top(nas='"without:sweep"'), "nas", ["there is no promise 'sweep'"]),
    "agent": (top(agent='"chronoss"'), "agent", ["did you mean chronos?", "package.module:factory"]),
    "agent beside expectations": (
        top(agent='"naive"') + '[[expect]]\nagent = "naive"',
        "agent",
        ["[[expect]]"],
    ),
    "boot": (asked(boot='"soon"'), "conditions.boot", ["90s", "'soon'"]),
    "boot twice": (asked(boot='["2s", "3s"]'), "conditions.boot", ["text"]),
    "boot is a number": (asked(boot="2"), "conditions.boot", ["text", "2"]),
    "run of another job": (asked(run='"b=5s"'), "conditions.run", ["there is no job 'b'"]),
    "run twice": (asked(run='["5s", "6s"]'), "conditions.run", ["got two"]),
    "outage of nobody": (asked(outage='"nobody=01:00-02:00"'), "conditions.outage", ["nobody"]),
    "outage elsewhere": (
        asked(outage='"nas=2027-01-01T01:00Z/2027-01-01T02:00Z"'),
        "conditions.outage",
        ["within the calendar"],
    ),
    "only without faults": (asked(only='"network.reply"'), "conditions.only", ["faults"]),
    "chance of the wire": (asked(fault='"wire.fire=1%"'), "conditions", ["of the wire"]),
    # faults
    "fault": (fault(what='"nas.crate"'), "fault[1].what", ["did you mean nas.create?"]),
    "fault by the clock": (fault(what='"machine.kill"'), "fault[1].what", ["[[change]]", "kill"]),
    "how": (fault(what='"network.reply"', how='"duplicated"'), "fault[1].how", ["lost, delayed"]),
    "no how": (fault(what='"network.reply"'), "fault[1].how", ["lost, delayed"]),
    "how where there is but one": (fault(what='"nas.create"', how='"x"'), "fault[1].how", ["none"]),
    "route to no machine": (fault(what='"route"', how='"1"', job='"a"'), "fault[1].how", ["one of: 0"]),
    "job of a fault": (fault(what='"nas.create"', job='"b"'), "fault[1].job", ["there is no job 'b'"]),
    "fault of a job without one": (fault(what='"nas.create"'), "fault[1].job", ["a job", "nas.create"]),
    "clock of a job": (fault(what='"machine.clock"', how='"-9s"', job='"a"'), "fault[1].job", ["no job"]),
    "machine of a fault": (
        fault(what='"machine.clock"', how='"-9s"', machine="1"),
        "fault[1].machine",
        ["0 to 0"],
    ),
    "machine beside a job": (
        fault(what='"network.request"', how='"lost"', job='"a"', machine="0"),
        "fault[1].machine",
        ["no machine"],
    ),
    # changes
    "do": (change(do='"kil"'), "change[1].do", ["did you mean kill?"]),
    "pause of nothing": (change(do='"pause"'), "change[1].job", ["a job", "pause"]),
    "kill of a job": (change(do='"kill"', job='"a"'), "change[1].job", ["no job", "kill"]),
    "pause of another job": (change(do='"pause"', job='"b"'), "change[1].job", ["there is no job 'b'"]),
    "pause on a machine": (change(do='"pause"', job='"a"', machine="0"), "change[1].machine", ["no machine"]),
    "kill of another machine": (change(do='"kill"', machine="3"), "change[1].machine", ["0 to 0"]),
    "stop for ever": (change(do='"stop"'), "change[1].lasts", ["missing", "1h30m"]),
    "kill that lasts": (change(do='"kill"', lasts='"1h"'), "change[1].lasts", ["none", "kill"]),
    "stop for soon": (change(do='"stop"', lasts='"soon"'), "change[1].lasts", ["'soon'"]),
    "edit to nothing": (change(do='"edit"', job='"a"'), "change[1].schedule", ["missing"]),
    "edit to nonsense": (change(do='"edit"', job='"a"', schedule='"x"'), "change[1].schedule", ["x"]),
    "clock by nothing": (change(do='"clock"', lasts='"1h"'), "change[1].off", ["missing"]),
    "clock by nonsense": (change(do='"clock"', lasts='"1h"', off='"x"'), "change[1].off", ["+40s"]),
    "fire of nothing": (change(do='"fire"', job='"a"'), "change[1].names", ["missing"]),
    "creation of what is there": (change(do='"create"', job='"a"'), "change[1].do", ["removed"]),
    "pause of what is gone": (
        change(do='"remove"', job='"a"')
        + "[[change]]\n"
        + lines(do='"pause"', job='"a"', at="2026-03-02T02:00:00Z"),
        "change[2].do",
        ["removed", "pause"],
    ),
    "stop beyond the end": (change(do='"stop"', lasts='"72h"'), "change[1].lasts", ["within the calendar"]),
    "keys of a model": (change(do='"rotate"') + "[[expect]]", "change[1].do", ["no tokens", "expect[1]"]),
    "token of a model": (
        change(do='"fire"', job='"a"', names=START, purpose='"api"') + "[[expect]]",
        "change[1].purpose",
        ["no tokens"],
    ),
    "purpose of a kill": (change(do='"kill"', purpose='"api"'), "change[1].purpose", ["none"]),
    # expectations
    "a model on the wire": (expect(agent='"naive"', wire='"json"'), "expect[1].wire", ["a model alone"]),
    "store": (expect(wire='"jsn"'), "expect[1].wire", ["did you mean json?"]),
    "property": (expect(violates='["NO-OVERLAPS"]'), "expect[1].violates", ["did you mean NO-OVERLAP?"]),
    "result": (expect(runs="{ complete = 1 }"), "expect[1].runs.complete", ["did you mean completed?"]),
    "count": (expect(counts="{ fire = 1 }"), "expect[1].counts.fire", ["did you mean fires?"]),
    "count of words": (expect(runs='{ completed = "many" }'), "expect[1].runs.completed", [">=1", "'many'"]),
    "count below 0": (expect(runs="{ completed = -1 }"), "expect[1].runs.completed", ["-1"]),
    "count that is true": (expect(counts="{ fires = true }"), "expect[1].counts.fires", ["true"]),
    "expectation of no job": (expect(jobs="{ b = { completed = 1 } }"), "expect[1].jobs.b", ["'b'"]),
    "result of a job": (expect(jobs="{ a = { done = 1 } }"), "expect[1].jobs.a.done", ["completed"]),
    "count of a job": (expect(jobs="{ a = { completed = 1.5 } }"), "expect[1].jobs.a.completed", ["1.5"]),
    "NAS of an expectation": (expect(nas='"minimum"'), "expect[1].nas", ["minimal"]),
    "agent of an expectation": (expect(agent='"chrono"'), "expect[1].agent", ["did you mean chronos?"]),
    "an agent twice": (expect() + "[[expect]]\nnas = 'hardened'", "expect[2]", ["expect[1]"]),
}


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command line, which must refuse with one line, and return the line."""
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1, told.err
    assert told.err.startswith("simulator: error: ")
    return told.err.removeprefix("simulator: error: ").rstrip("\n")


@pytest.mark.parametrize("name", BAD)
def test_bad_scenario_is_refused_in_one_line_and_left_alone(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line names the file, the key and what was expected; nothing is written."""
    text, key, words = BAD[name]
    path, report = tmp_path / "bad.toml", tmp_path / "report.json"
    path.write_text(text, encoding="utf-8")
    line = refused(capsys, "run", str(path), "--json", str(report))
    assert line.startswith(f"{path}: {key}: " if key else f"{path}: "), line
    assert all(word in line for word in words), line
    assert sorted(tmp_path.iterdir()) == [path]
    assert path.read_text(encoding="utf-8") == text


def test_whole_scenario_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The files above differ from one in which nothing is wrong."""
    path = tmp_path / "whole.toml"
    for text in (WHOLE, SMALL):
        path.write_text(text)
        load(path)
    path.write_text(WHOLE)
    assert main(["run", str(path)]) == 0
    assert "verdict    as expected" in capsys.readouterr().out


def test_edit_keeps_the_time_zone_of_the_job(tmp_path: Path) -> None:
    """An hour that is written down is one of the zone in which the job's hours are."""
    path = tmp_path / "whole.toml"
    path.write_text(WHOLE)
    edited = load(path).script.deeds[0].schedule
    assert isinstance(edited, Cron)
    assert edited.tz == "Europe/Berlin"


def test_file_that_cannot_be_read_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that is missing, a folder, no text, or endless is one clear line, too."""
    (tmp_path / "night.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "long.toml").write_text("#" * (MAX_BYTES + 1))
    (tmp_path / "endless.toml").symlink_to("/dev/zero")
    for name, words in {
        "nigth.toml": "No such file or directory; did you mean night.toml?",
        "night.toml": "UTF-8",
        "folder.toml": "cannot be read",
        "long.toml": "4 MiB at most",
        "endless.toml": "4 MiB at most",
    }.items():
        line = refused(capsys, "run", str(tmp_path / name))
        assert line.startswith(f"{tmp_path / name}: "), line
        assert words in line


@pytest.mark.parametrize("name", names())
def test_shipped_file_satisfies_the_schema(name: str) -> None:
    """What checks a file by the published schema lets all pass that the reader does."""
    raw = tomllib.loads((folder() / f"{name}.toml").read_text(encoding="utf-8"))
    whole = schema()
    assert list(faults_of(raw, whole, whole)) == []


def test_schema_refuses_what_the_reader_refuses() -> None:
    """The check by the schema is one: it finds a mistyped key, and a value of another type."""
    raw = tomllib.loads(WHOLE)
    whole = schema()
    assert list(faults_of(raw, whole, whole)) == []
    for changed in ({"dyas": 3}, {"days": "3"}, {"days": 0}, {"faults": "hevy"}, {"job": [{"id": "a"}]}):
        assert list(faults_of({**raw, **changed}, whole, whole)), changed


def faults_of(value: Any, schema: dict[str, Any], whole: dict[str, Any]) -> Iterator[str]:
    """Yield what a value has against the part of JSON schema that this one uses."""
    if "$ref" in schema:
        schema = whole["$defs"][schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        if all(any(faults_of(value, each, whole)) for each in schema["anyOf"]):
            yield f"{value!r} is none of {schema['anyOf']}"
        return
    kinds = {"string": str, "integer": int, "boolean": bool, "array": list, "object": dict, "null": NoneType}
    found = value.isoformat() if isinstance(value, datetime) else value
    if "type" in schema and type(found) is not kinds[schema["type"]]:
        yield f"{value!r} is no {schema['type']}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{value!r} is none of {schema['enum']}"
    if "pattern" in schema and re.search(schema["pattern"], found) is None:
        yield f"{value!r} is not as {schema['pattern']}"
    if type(value) is int and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{value!r} is out of bounds"
    for each in value if isinstance(value, list) else ():
        yield from faults_of(each, schema["items"], whole)
    if isinstance(value, dict):
        yield from faults_of_keys(value, schema, whole)


def faults_of_keys(value: dict[str, Any], schema: dict[str, Any], whole: dict[str, Any]) -> Iterator[str]:
    """Yield what the keys of a table have against it."""
    known = schema.get("properties", {})
    yield from (f"{name} is missing" for name in schema.get("required", ()) if name not in value)
    for name, each in value.items():
        if name in known:
            yield from faults_of(each, known[name], whole)
        elif schema.get("additionalProperties", True) is False:
            yield f"there is no {name}"
        elif isinstance(schema.get("additionalProperties"), dict):
            yield from faults_of(each, schema["additionalProperties"], whole)
