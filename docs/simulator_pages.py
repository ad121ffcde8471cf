"""What the pages say of the simulator: properties, scenarios, faults, the command line, and samples."""

from __future__ import annotations

import argparse
import ast
import os
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import Enum
from functools import cache, partial
from pathlib import Path
from typing import Any

from contract_pages import promises_of
from writing import as_json, block, code, folded, incident_links, sentence, table

from chronos.cli import command_line as chronos_command_line
from chronos.jobs.instants import HOUR_US, MINUTE_US, SECOND_US, parse_instant
from chronos.jobs.job import Result
from chronos.values import evolve
from simulator import command_line as simulator_command_line
from simulator import faults, fleet, host, marks, sweep, watch, whatif, world
from simulator.agents import CHRONOS
from simulator.campaign import perform
from simulator.cells import Variation, cells_of
from simulator.commands.explorer import MOST_STATES, Explorer
from simulator.compare import Cost, plain
from simulator.conditions import Conditions, Once, Outage, Party
from simulator.properties import PROPERTIES, Expectation
from simulator.report import document, terminal, traces, whatif_page
from simulator.report.campaigns import Table
from simulator.report.costs import cost_lines
from simulator.report.counterexamples import Drawn, write_counterexamples
from simulator.report.page import MOST_LINES, Page
from simulator.report.shrunk import shrunk_lines
from simulator.report.story import Story
from simulator.report.whatif import whatif_lines
from simulator.scenario import Plan, simulate
from simulator.scenario_file import names, shipped
from simulator.search import cases
from simulator.search.explore import search
from simulator.search.told import lines_of
from simulator.shrink import Shrinking
from simulator.summary import Summary
from simulator.trace import Tracer

_HERE = Path(__file__).resolve().parent
# Every incident that the page of incidents tells: its rows ask for them.
INCIDENTS = tuple(re.findall(r"\{\{ closes-(\w+) \}\}", (_HERE / "incidents.md").read_text(encoding="utf-8")))

# --- properties -------------------------------------------------------------------------------

_EXPECTATIONS = {
    Expectation.ALWAYS: "Always: decided at every moment it can be, faults or not.",
    Expectation.EVENTUALLY: "Eventually: decided once faults are over and everything has settled.",
    Expectation.SOMETIMES: (
        "Sometimes: met in some history. A suite that never meets a situation proves nothing about it."
    ),
}


def properties_page() -> str:
    """Return the page with every property."""
    parts = [
        "# Properties\n",
        "What must hold, each sentence once: the simulated runs, the exhaustive search, the tests and this"
        " page use the same list (`simulator/properties.py`).\n",
        *(f"- {words}" for words in _EXPECTATIONS.values()),
        "\nA job is *at rest* when nobody is at work on it: no message about it is on its way, no flow of a"
        " living process concerns it, no run of it is in flight, and no machine is starting. The properties"
        " of arms are decided then, since in between store and NAS differ rightly.\n",
    ]
    for each in PROPERTIES:
        parts += [f"## {each.id}\n", f"*{each.expectation.capitalize()}.* {each.statement}\n"]
        if each.incidents:
            parts.append(f"Incidents: {incident_links(each.incidents, up='../')}.\n")
    parts += [
        f"## {Expectation.SOMETIMES.capitalize()}\n",
        "The situations that a report counts as `marks`, and the simulations of the tests in which each is"
        " met (`simulator/marks.py`).\n",
        table(
            ["Name", "What happens", "Met"],
            (
                [code(mark.name), mark.words, mark.where]
                for mark in marks.MARKS
                if mark.where is not marks.Where.NOWHERE
            ),
        ),
    ]
    return "\n".join(parts)


def _closed_by(incident: str) -> str:
    """Return links to the properties and promises that name an incident; where none does, its tests."""
    properties = [each.id for each in PROPERTIES if incident in each.incidents]
    promises = [name for name, (_, closes) in promises_of().items() if incident in closes]
    links = [f"[{each}](reference/properties.md#{each.lower()})" for each in properties]
    links += [f"NAS: [`{name}`](contract/nas.md#{name})" for name in promises]
    links += [
        f"[scenario](reference/scenarios.md#{name})" for name in names() if shipped(name).incident == incident
    ]
    return "<br>".join(links or map(code, dict.fromkeys(_tests_of().get(incident, ["—"]))))


@cache
def _tests_of() -> Mapping[str, list[str]]:
    """Return the tests that each incident is told by, from the end of their docstrings."""
    found: dict[str, list[str]] = {}
    for path in sorted((_HERE.parent / "tests").glob("test_*.py")):
        for each in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name.startswith("test_"):
                told = re.search(r"\(incidents? ([A-Z0-9, ]+)\)", ast.get_docstring(each) or "")
                for incident in told[1].split(", ") if told else ():
                    found.setdefault(incident, []).append(each.name)
    return found


# --- faults --------------------------------------------------------------------------------------


def faults_page() -> str:
    """Return the page with every decision that the simulated world leaves open."""
    return "\n".join(
        [
            "# Faults\n",
            "Whatever the simulated world leaves open is one decision with a name, its options and how likely"
            " they are (`simulator/faults.py`).\n",
            table(
                ["Level", "What goes wrong"], ([code(name), words] for name, words in faults.LEVELS.items())
            ),
            "At `heavy` each run is one of a swarm: some runs meet a fault often and some never.\n",
            f"The people of `{faults.CHANGE.name}` are at work at `heavy` only. What they do for some hours"
            " or by hand changes how many occurrences there are: not as many as the jobs' own schedules"
            " have.\n",
            "## What may go wrong\n",
            table(
                ["Name", "Likelihood", "What it is", "How", "Source"],
                (
                    [
                        code(fault.name),
                        f"{fault.likelihood:.1%}",
                        fault.words,
                        _chances(fault),
                        _source(fault),
                    ]
                    for fault in (*faults.FAULTS, *faults.WIRE_FAULTS)
                ),
            ),
            "## Ordinary variation\n",
            "At every level. The first option is likelier than each of the others where it says so.\n",
            table(
                ["Name", "What it is", "Options", "Source"],
                ([code(each.name), each.words, _options(each), _source(each)] for each in faults.VARIATIONS),
            ),
            "## One of what there is\n",
            "At every level, each as likely as the others.\n",
            table(
                ["Name", "What it is", "Source"],
                ([code(each.name), each.words, _source(each)] for each in faults.PICKS),
            ),
        ]
    )


def _chances(fault: faults.Fault[Any]) -> str:
    return "<br>".join(f"{_told(option)}: {chance:.1%}" for option, chance in fault.chances.items())


def _options(variation: faults.Variation[Any]) -> str:
    first, *others = map(_told, variation.options)
    times = f" ({variation.first} times as likely)" if variation.first > 1 else ""
    if len(others) > 20:
        return f"{first}{times} to {others[-1]}, {len(others) + 1} options"
    return ", ".join([first + times, *others])


def _source(decision: faults.Decision) -> str:
    return decision.reason or f"Incidents: {incident_links(decision.incidents, up='../')}."


def _told(option: object) -> str:
    """Return an option in words, a named one with its durations; whole numbers are microseconds."""
    if isinstance(option, bool):
        return "yes" if option else "no"
    if isinstance(option, Enum):
        if isinstance(option.value, str):
            return option.value
        spans = option.value if isinstance(option.value, tuple) else (option.value,)
        return ", ".join([option.name.lower(), *(_told(span) for span in spans if span)])
    assert isinstance(option, int)
    units = ((HOUR_US, "h"), (MINUTE_US, "min"), (SECOND_US, "s"), (1000, "ms"))
    unit_us, unit = next(each for each in units if option % each[0] == 0) if option else units[2]
    return f"{option // unit_us} {unit}"


# --- the command line -------------------------------------------------------------------------


def command_line_page() -> str:
    """Return the page with the help of every command of both programs, and their exit statuses."""
    parts = ["# Command line\n"]
    for module, statuses in (
        (simulator_command_line, simulator_command_line.STATUSES),
        (chronos_command_line, chronos_command_line.STATUSES),
    ):
        parser = module._parser()
        parts += [f"## {parser.prog.removeprefix('python -m ').capitalize()}\n", block(_help(parser))]
        parts += ["### Exit statuses\n" if module is simulator_command_line else "", _statuses(statuses)]
        for name, sub in _commands(parser).items():
            parts += [f"### {name}\n", block(_help(sub))]
    return "\n".join(parts)


def _commands(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    action = next(each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    return action.choices


def _help(parser: argparse.ArgumentParser) -> str:
    """Return the help as a terminal of 100 columns shows it."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"
    try:
        return parser.format_help()
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _statuses(statuses: Mapping[int, str]) -> str:
    return table(
        ["Status", "Meaning"], ([str(status), sentence(words)] for status, words in statuses.items())
    )


# --- samples, worked out at every build -------------------------------------------------------


@cache
def _sample(name: str) -> tuple[Plan, Summary]:
    chosen = shipped(name)
    plan = Plan(
        scenario=name,
        fleet=fleet.load_shipped(chosen.fleet),
        days=chosen.days,
        faults=chosen.faults,
        nas=chosen.nas,
        agent=chosen.agent,
        machines=chosen.machines,
    )
    return plan, simulate(plan, 0)


def _sample_run() -> str:
    return block("\n".join(terminal.summary_lines(_sample("quiet-month")[0], 0, _sample("quiet-month")[1])))


def _sample_violation() -> str:
    """Return the first violation that the naive agent is caught with, as the terminal tells it."""
    lines = list(terminal.summary_lines(_sample("naive-agent")[0], 0, _sample("naive-agent")[1]))
    first = next(number for number, line in enumerate(lines) if line.startswith("violated"))
    after = next(number for number in range(first + 1, len(lines)) if not lines[number].startswith(" "))
    return block("\n".join(lines[:after]))


def _sample_story() -> str:
    """Return the story of a job of the year, of its first days."""
    plan, job_id = evolve(_sample("year")[0], days=10), "job-07"
    story = Story(job_id, None)
    tracer = Tracer(story.take, plan.fleet.job_ids, job_id)
    lines = story.lines(simulate(plan, 0, tracer=tracer))
    return block("\n".join([f"$ python -m simulator explain year --days 10 --job {job_id}", "…", *lines]))


def _sample_shrunk() -> str:
    """Return the least that leads to the first violation of the naive agent."""
    shrunk = Shrinking(_sample("naive-agent")[0], 0).shrink()
    assert shrunk is not None
    return block("\n".join(["$ python -m simulator shrink naive-agent", *shrunk_lines(shrunk)]))


def _sample_sweep() -> str:
    """Return the table of a campaign of two cells."""
    words = ["naive-agent", "--days", "3"]
    cells, _ = cells_of(words[:1], words[1:], [Variation.of("faults=none,heavy")])
    swept = Table(cells, range(20))
    for task in swept.missing():
        swept.add(perform(tuple(cell.plan for cell in cells), task).outcome)
    asked = f"$ python -m simulator sweep {' '.join(words)} --vary faults=none,heavy --seeds 20"
    return block("\n".join([asked, *swept.lines()]))


def _sample_json() -> str:
    plan, summary = _sample("quiet-month")
    shown = block(as_json(document.summary_object(plan, 0, summary)), "json")
    return folded("The object of the run above", shown)


def _cost_of(**asked: Any) -> str:
    """Return the line that tells what was asked for of a week of a shipped fleet, and what it costs."""
    plan = Plan(
        scenario="own-jobs",
        fleet=fleet.load_shipped("fleet-07"),
        days=7,
        faults="none",
        nas="hardened",
        agent="chronos",
        machines=1,
        conditions=Conditions(**asked),
    )
    cost = Cost()
    cost.add(simulate(plain(plan), 0), simulate(plan, 0))
    return block("\n".join([*terminal.asked_lines(plan), *cost_lines(cost)]))


@cache
def _what_if() -> whatif.Answer:
    """Return a month of a shipped fleet under other terms."""
    plan = evolve(_sample("quiet-month")[0], scenario="what-if")
    found = whatif.variants(plan, idle_us=whatif.IDLE_US, boot_us=whatif.BOOT_US)
    return whatif.answer(plan, found, range(1), whatif.Prices(hour=Decimal("0.02"), wake=Decimal("0.0001")))


def _outage() -> Outage:
    begins, ends = "2026-09-20T01:55Z", "2026-09-20T02:20Z"
    when = Once(from_us=parse_instant(begins), until_us=parse_instant(ends), text=f"{begins} to {ends}")
    return Outage(party=Party.NAS, when=when)


def _cases() -> str:
    """Return the bounded worlds of the exhaustive search."""
    rows = []
    for case in cases.CASES:
        instants = ", ".join(str(instant_us // SECOND_US) for instant_us in case.instants_us)
        size = "only with `--deep`" if case.is_deep else "always"
        asked = code(type(case.change).__name__) if case.change else ""
        asked = "to run no jobs, and later to run them again" if case.is_stopped else asked
        rows.append([case.name, instants, asked, size])
    return table(["Case", "Where time may stand, s", "What somebody may ask for", "Searched"], rows)


def _results() -> str:
    return ", ".join(code(result.value) for result in Result)


def downloads() -> dict[str, str]:
    """Return the pages of simulations as files of the site, by path."""
    plan = evolve(_sample("naive-agent")[0], days=6)
    page, pieces = Page(plan, 0), list[str]()
    summary = simulate(plan, 0, tracer=Tracer(page.take, plan.fleet.job_ids))
    page.write(pieces.append, summary)
    shown = list[str]()
    write_counterexamples(shown.append, "agent chronos, NAS minimal; one job, two processes", _found())
    return {
        "see/naive-agent.html": "".join(pieces),
        "see/whatif.html": "".join(whatif_page.page(_what_if())),
        "see/counterexamples.html": "".join(shown),
    }


# The case whose counterexamples are shown, and how many of its states have them.
_SHOWN, _ENOUGH = "one occurrence, and somebody pauses the job", 8_000


def _found() -> list[Drawn]:
    """Return what the search finds of a NAS that promises no more than the published contract."""
    small = sweep.small_world(CHRONOS.name, "minimal", (1, 1, 1), _SHOWN)
    command = f"python -m simulator check --explore --case '{_SHOWN}' --nas minimal --follow"
    return [
        Drawn(
            case=_SHOWN,
            processes=small.case.processes,
            found=found,
            lines=lines_of(small, found),
            walk=f"{command} {','.join(map(str, found.choices))}",
        )
        for found in search(small, limit=_ENOUGH).counterexamples
    ]


def _sample_walk() -> str:
    """Return where one is after two steps through the first case."""
    small = sweep.small_world(CHRONOS.name, "hardened", (1, 1, 1), cases.CASES[0].name)
    explorer = Explorer(small, MOST_STATES, lambda _: "")
    explorer.follow((1, 2))
    return block("\n".join(["$ python -m simulator check --explore --follow 1,2", "…", *explorer.lines()]))


PARTS: Mapping[str, Callable[[], str]] = {
    "sample_run": _sample_run,
    "sample_violation": _sample_violation,
    "sample_json": _sample_json,
    "cost_of_outage": lambda: _cost_of(outages=(_outage(),)),
    "cost_of_boots": lambda: _cost_of(boot_us=90 * SECOND_US),
    "cost_of_runs": lambda: _cost_of(run_us=20 * MINUTE_US),
    "sample_whatif": lambda: block("\n".join(whatif_lines(_what_if()))),
    "looks": lambda: f"{host.LOOK_EVERY_US // SECOND_US} seconds",
    "stuck": lambda: f"{faults.Boot.STUCK.value // MINUTE_US} minutes",
    "deployment": lambda: f"{world.DEPLOYMENT_US // MINUTE_US} minutes",
    "sample_shrunk": _sample_shrunk,
    "sample_sweep": _sample_sweep,
    "sample_story": _sample_story,
    "sample_walk": _sample_walk,
    "statuses": lambda: _statuses(simulator_command_line.STATUSES),
    "chronos_statuses": lambda: _statuses(chronos_command_line.STATUSES),
    "cases": _cases,
    "results": _results,
    "page_lines": lambda: f"{MOST_LINES:,}",
    "trace_forms": lambda: "; ".join(f"{code(end)}, {words}" for end, words in traces.WORDS.items()),
    "hops": lambda: ", ".join(code(hop) for hop in watch.HOPS if hop != "total"),
    "wire_faults": lambda: "; ".join(fault.words for fault in faults.WIRE_FAULTS),
    "settling": lambda: f"{world.SETTLING_US // (3600 * SECOND_US)} hours",
    **{f"closes-{incident}": partial(_closed_by, incident) for incident in INCIDENTS},
}
