"""What the pages say of scenarios: each one that ships, the keys of a file, and a sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from writing import as_json, block, code, folded, incident_links, sentence, table

from simulator import faults, fleet
from simulator.judging import judge
from simulator.report.judged import scenario_lines
from simulator.report.words import counted
from simulator.scenario import Expectation, Scenario
from simulator.scenario_file import folder, load, names, shipped
from simulator.scenario_forms import COUNTS, TABLES, Form, choices_of, description_of, schema
from simulator.script import GIVEN, TO_A_JOB, TO_A_MACHINE, WORDS, Do
from simulator.written import DONE, STRIKING, whom

# The file of the page that shows one.
_SAMPLE = Path(__file__).resolve().parent / "examples" / "night.toml"
_INCIDENTS = (Path(__file__).resolve().parent / "incidents.md").read_text(encoding="utf-8")
SCHEMA = "scenario.schema.json"

# --- those that ship --------------------------------------------------------------------------


def scenarios_page() -> str:
    """Return the page with every shipped scenario."""
    parts = [
        "# Scenarios\n",
        "`python -m simulator list` names them, `run NAME` runs one, and `run --all` every one of which"
        " something is expected. Options of `run` replace what the scenario says; see"
        " [the command line](command-line.md). How one is written: [scenarios as files](../scenarios.md).\n",
    ]
    for each in map(shipped, names()):
        parts += [f"## {each.name}\n", f"{sentence(each.about)}\n"]
        if each.incident:
            is_told = f'id="{each.incident.lower()}"' in _INCIDENTS
            link = incident_links([each.incident], up="../") if is_told else each.incident
            parts.append(f"Incident: {link}.\n")
        parts.append(_setting_of(each))
        if each.expects:
            parts.append(table(["Agent", "Expected"], map(_row_of, each.expects)))
        text = (folder() / f"{each.name}.toml").read_text(encoding="utf-8")
        parts.append(folded(f"The file, `{each.name}.toml`", block(text, "toml")))
    return "\n".join(parts)


def _setting_of(scenario: Scenario) -> str:
    loaded = scenario.own or fleet.load_shipped(scenario.fleet)
    jobs = counted(len(loaded.jobs), "job")
    return table(
        ["Fleet", "Days", "Faults", "NAS", "Machines"],
        [
            [
                f"{code(scenario.fleet)}, {jobs}" if scenario.fleet else jobs,
                str(scenario.days),
                scenario.faults,
                scenario.nas,
                str(scenario.machines),
            ]
        ],
    )


def _row_of(expected: Expectation) -> list[str]:
    return [code(expected.whose), "<br>".join(_wanted(expected))]


def _wanted(expected: Expectation) -> Iterator[str]:
    """Yield what is expected of an agent, in words."""
    links = [f"[{each}](properties.md#{each.lower()})" for each in expected.violates]
    yield f"violates {', '.join(links)}" if links else "every property holds"
    if expected.raises:
        yield "raises exceptions"
    for name, count in (*expected.runs, *expected.counts):
        yield f"{name.replace('_', ' ')}: {code(count)}"
    for job_id, name, count in expected.jobs:
        yield f"{name} of {code(job_id)}: {code(count)}"


# --- the file ---------------------------------------------------------------------------------


def _keys_of(name: str) -> str:
    """Return the table of the keys of a table of the file; of the file itself where *name* is empty."""
    kind = TABLES[name] if name else Form
    told = schema()["$defs"][kind.__name__]
    required = told.get("required", ())
    rows = []
    for key, each in told["properties"].items():
        default = "" if key in required else _default(each.get("default"))
        choices = " or ".join(map(code, choices_of(kind, key))) if "enum" in each else ""
        rows.append([code(key), choices or _type_of(key, each), default, description_of(kind, key)])
    return table(["Key", "Type", "Default", "What it is"], rows)


def _default(value: object) -> str:
    return "none" if value in (None, "", [], {}) else code(str(value).lower() if value is False else value)


def _type_of(key: str, told: Mapping[str, Any]) -> str:
    """Return a type of the schema in words."""
    if "$ref" in told.get("items", ()):
        return f"tables, `[[{key}]]`"
    if "anyOf" in told:
        kinds = [each for each in told["anyOf"] if each.get("type") != "null"]
        return _type_of("", kinds[0]) if len(kinds) == 1 else "count"
    if told.get("format") == "date-time":
        return "instant"
    if told["type"] == "integer":
        most = f" to {told['maximum']:,}" if told.get("maximum", 2**53) < 2**53 else ""
        return f"number from {told.get('minimum', 0)}{most}"
    words = {"string": "text", "boolean": "`true` or `false`", "array": "list of text", "object": "table"}
    return words[told["type"]]


def _deeds() -> str:
    """Return the table of what somebody may do."""
    rows = []
    for do in Do:
        of = "`job`" if do in TO_A_JOB else "the agent"
        machine = " `machine`" if do in TO_A_MACHINE else ""
        of = f"{of}, at a{machine}" if do in TO_A_JOB and machine else machine.strip() or of
        rows.append(
            [code(do), WORDS[do], of, ", ".join(code(key) for key, dos in GIVEN.items() if do in dos)]
        )
    return table(["`do`", "What happens", "To whom", "Needs"], rows)


def _strikes() -> str:
    """Return the table of the faults that may be written down."""
    every = {each.name: each for each in faults.DECISIONS}
    rows = []
    for name, options in STRIKING.items():
        how = ", ".join(code(each) for each in options if each) or (
            "the number of a machine" if not options else ""
        )
        rows.append([code(name), every[name].words, " or ".join(map(code, whom(name))), how])
    return table(["`what`", "What happens", "To whom", "`how`"], rows)


def _sample() -> str:
    scenario = load(_SAMPLE)
    judged = [judge(scenario, each) for each in scenario.expects]
    return block("\n".join(["$ python -m simulator run night.toml", *scenario_lines(scenario, judged)]))


def downloads() -> dict[str, str]:
    """Return the schema of a file as a file of the site, by its path."""
    return {SCHEMA: as_json(schema())}


PARTS: Mapping[str, Callable[[], str]] = {
    "scenario_keys": lambda: _keys_of(""),
    **{f"scenario_{name}": lambda name=name: _keys_of(name) for name in TABLES},  # type: ignore[misc]
    "scenario_deeds": _deeds,
    "scenario_faults": _strikes,
    "scenario_by_the_clock": lambda: table(
        ["Fault", "Written as"], ([code(name), code(words)] for name, words in DONE.items())
    ),
    "scenario_counts": lambda: ", ".join(map(code, COUNTS)),
    "scenario_sample": _sample,
}
