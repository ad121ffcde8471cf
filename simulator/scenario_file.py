"""Scenarios as files: TOML, read once and never written.

An error names the file, the key and what was expected. The keys are those of `simulator.scenario_forms`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from datetime import date, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from chronos.agent.declaring import JobSpec, checked_id
from chronos.cli.console import BadUsage
from chronos.cli.options import Parser, expected, nearest_file, zone
from chronos.errors import ChronosError, JobsFileError
from chronos.jobs.instants import DAY_US, Instant, microseconds_of, parse_instant
from chronos.jobs.job import Job, Result
from chronos.jobs.policy import Policy
from chronos.jobs.schedule import parse_schedule
from chronos.stores.policy import KEYS as POLICY_KEYS
from chronos.stores.policy import read_policy
from chronos.stores.reader import Reader
from chronos.values import evolve
from simulator import conditions_options, faults, fleet
from simulator.agents import AGENTS, CHRONOS
from simulator.conditions import NOTHING_ASKED, Conditions
from simulator.promises import promises_of
from simulator.properties import PROPERTIES
from simulator.scenario import ENDS_BEFORE_US, Expectation, Scenario
from simulator.scenario_forms import COUNTS, ExpectForm, Form, JobForm, ScenarioError, form_of
from simulator.wire import STORES
from simulator.written import Written

T = TypeVar("T")

# The calendar of a scenario that has jobs of its own begins here, unless it says where.
START = "2026-03-02T00:00:00Z"
# What is longer is no scenario.
MAX_BYTES = 4 * 2**20

_EARLIEST_US = parse_instant("1970-01-01T00:00:00Z")
_AGENT = re.compile(r"[\w.]+:[\w.]+")


def load(path: Path) -> Scenario:
    """Return the scenario of a file.

    Raises:
        ScenarioError: it cannot be read, or is none.
    """
    try:
        with path.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ScenarioError(str(path), "", f"expected {MAX_BYTES >> 20} MiB at most")
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        problem = f"expected text in UTF-8, got byte 0x{data[error.start]:02x} at offset {error.start}"
        raise ScenarioError(str(path), "", problem) from None
    except (OSError, ValueError) as error:
        hint = nearest_file(path) if isinstance(error, FileNotFoundError) else ""
        reason = getattr(error, "strerror", None) or str(error)
        raise ScenarioError(str(path), "", f"cannot be read: {reason}{hint}") from None
    return _File(str(path), path).scenario(path.stem, form_of(str(path), text))


class _File:
    """A file that is being read."""

    def __init__(self, source: str, path: Path) -> None:
        self._source, self._path = source, path
        self._ids: tuple[str, ...] = ()

    def _refuse(self, key: str, problem: object) -> ScenarioError:
        return ScenarioError(self._source, key, str(problem))

    def _or_refused(self, key: str, make: Callable[[], T]) -> T:
        try:
            return make()
        except (ChronosError, ValueError, TypeError, BadUsage, argparse.ArgumentTypeError) as error:
            raise self._refuse(key, error) from None

    def scenario(self, name: str, form: Form) -> Scenario:
        """Return the scenario that *form* tells."""
        loaded = self._fleet(form)
        self._ids = loaded.job_ids
        ends_us = loaded.start_us + form.days * DAY_US
        if not _EARLIEST_US <= loaded.start_us < ends_us < ENDS_BEFORE_US:
            raise self._refuse("start", "expected a calendar between the years 1970 and 9900")
        written = Written(self._source, form, loaded)
        return Scenario(
            name=name,
            source=self._source,
            about=form.about,
            incident=form.incident,
            fleet=form.fleet,
            own=None if form.fleet in fleet.shipped() else loaded,
            start_us=None if form.start is None else microseconds_of(form.start),
            days=form.days,
            seed=form.seed,
            faults=form.faults,
            nas=self._nas("nas", form.nas),
            agent=self._agent(form),
            machines=form.machines,
            policies=form.policies,
            conditions=self._conditions(form, loaded.start_us, ends_us),
            script=written.script(),
            expects=self._expects(form),
        )

    # --- jobs ---

    def _fleet(self, form: Form) -> fleet.Fleet:
        start_us = None if form.start is None else microseconds_of(form.start)
        if bool(form.fleet) == bool(form.job):
            got = "both" if form.job else "neither"
            raise self._refuse("fleet", f"expected either a fleet or jobs of its own as [[job]], got {got}")
        if form.job:
            own_start_us = parse_instant(START) if start_us is None else start_us
            jobs = tuple(self._job(number, job, own_start_us) for number, job in enumerate(form.job, 1))
            for number, job in enumerate(jobs):
                if job.id in {each.id for each in jobs[:number]}:
                    raise self._refuse(
                        f"job[{number + 1}].id", f"expected another id than {job.id!r}, which is taken"
                    )
            return fleet.Fleet(name=self._path.name, jobs=jobs, start_us=own_start_us)
        if form.fleet in fleet.shipped():
            return fleet.load_shipped(form.fleet, start_us=start_us)
        if not form.fleet.endswith(".json"):
            shipped = fleet.shipped()
            raise self._refuse("fleet", f"there is no fleet {expected(form.fleet, shipped)}, or a file.json")
        try:
            loaded = fleet.load_file(self._path.parent / form.fleet, start_us=start_us)
        except JobsFileError as error:
            raise self._refuse("fleet", str(error).replace("with --start", "with start")) from None
        return evolve(loaded, name=form.fleet)

    def _job(self, number: int, form: JobForm, start_us: Instant) -> Job:
        key = f"job[{number}]"
        policy = self._policy(f"{key}.policy", form.policy)
        self._or_refused(f"{key}.id", lambda: checked_id(form.id))
        self._or_refused(f"{key}.tz", lambda: zone(form.tz))
        self._or_refused(
            f"{key}.schedule", lambda: parse_schedule(form.schedule, now_us=start_us, tz=form.tz)
        )
        return self._or_refused(key, lambda: self._declared(form, policy, start_us))

    def _policy(self, key: str, given: dict[str, Any]) -> Policy:
        """Return a policy, spelt as in a jobs file; instants may be those of TOML, and no key is unknown."""
        raw = {name: _as_json(value) for name, value in given.items()}
        for holder, names in POLICY_KEYS.items():
            held = raw.get(holder) if holder else raw
            for name in held if isinstance(held, dict) else ():
                if name not in names:
                    place = ".".join(filter(None, (key, holder, name)))
                    raise self._refuse(place, f"there is no key {expected(name, names)}")
        try:
            return read_policy(Reader(source=self._source, job=None, raw=raw, path=f"{key}."))
        except JobsFileError as error:
            raise ScenarioError(str(error), "", "") from None

    def _declared(self, form: JobForm, policy: Policy, start_us: Instant) -> Job:
        spec = JobSpec(form.id, form.schedule, tz=form.tz, times=form.times, policy=policy)
        return spec.declared(start_us).job

    # --- around them ---

    def _nas(self, key: str, text: str) -> str:
        self._or_refused(key, lambda: promises_of(text))
        return text

    def _conditions(self, form: Form, start_us: Instant, ends_us: Instant) -> Conditions:
        if not form.conditions:
            return NOTHING_ASKED
        parser = Parser(prog="", add_help=False)
        conditions_options.add_conditions(parser)
        names = [action.dest for action in parser._actions]
        repeated = [action.dest for action in parser._actions if action.default == []]
        arguments = []
        for name, values in form.conditions.items():
            key = f"conditions.{name}"
            if name not in names:
                raise self._refuse(key, f"there is no key {expected(name, names)}")
            each = values if isinstance(values, list) and name in repeated else [values]
            what = "text, or a list of it" if name in repeated else "text"
            if not all(isinstance(value, str) for value in each):
                raise self._refuse(key, f"expected {what}, such as on the command line, got {values!r}")
            given = [f"--{name}={value}" for value in each]
            self._asked(key, lambda given=given: parser.parse_args(given))  # type: ignore[misc]
            arguments += given
        asked = self._asked("conditions", lambda: conditions_options.conditions(parser.parse_args(arguments)))
        of_wire = {each.name for each in faults.WIRE_FAULTS}
        for name in (*asked.only, *asked.without, *dict(asked.likelihoods)):
            if name in of_wire:
                raise self._refuse(
                    "conditions", f"{name} is a fault of the wire, which is asked for by options"
                )
        self._asked(
            "conditions",
            lambda: conditions_options.check(
                asked, self._ids, start_us, ends_us, level=form.faults, of_wire=False
            ),
        )
        return asked

    def _asked(self, key: str, make: Callable[[], T]) -> T:
        """Return what *make* does; where an option is refused, the key of that name is."""
        try:
            return make()
        except BadUsage as error:
            problem = re.sub(r" \(see: .*\)$|^argument ", "", str(error))
            found = re.match(r"--(\w+):? ", problem)
            if found is not None:
                key, problem = f"conditions.{found[1]}", problem[found.end() :]
            raise self._refuse(key, problem.replace("--", "")) from None

    # --- what is expected ---

    def _agent(self, form: Form) -> str:
        """Return the agent with which the scenario is simulated where nothing is judged."""
        if not form.expect:
            return self._named("agent", form.agent or CHRONOS.name)
        if form.agent is not None:
            raise self._refuse("agent", "expected none beside [[expect]], whose tables name theirs")
        return form.expect[0].agent

    def _named(self, key: str, name: str) -> str:
        if name not in AGENTS and not _AGENT.fullmatch(name):
            raise self._refuse(key, f"there is no agent {expected(name, AGENTS)}, or package.module:factory")
        return name

    def _expects(self, form: Form) -> tuple[Expectation, ...]:
        expects = tuple(self._expected(*each) for each in enumerate(form.expect, 1))
        for number, each in enumerate(expects):
            for earlier, other in enumerate(expects[:number], 1):
                if (each.agent, each.nas or form.nas, each.wire) == (
                    other.agent,
                    other.nas or form.nas,
                    other.wire,
                ):
                    problem = f"expected another agent, NAS or wire than in expect[{earlier}]"
                    raise self._refuse(f"expect[{number + 1}]", problem)
        return expects

    def _expected(self, number: int, each: ExpectForm) -> Expectation:
        key = f"expect[{number}]"
        known = [each.id for each in PROPERTIES]
        for name in each.violates:
            if name not in known:
                raise self._refuse(f"{key}.violates", f"there is no property {expected(name, known)}")
        results = [str(result) for result in Result]
        self._check_keys(f"{key}.runs", each.runs, results)
        self._check_keys(f"{key}.counts", each.counts, COUNTS)
        for job_id, runs in each.jobs.items():
            self._check_keys(f"{key}.jobs", [job_id], self._ids)
            self._check_keys(f"{key}.jobs.{job_id}", runs, results)
        return Expectation(
            agent=self._named(f"{key}.agent", each.agent),
            wire=self._wire(f"{key}.wire", each.wire, each.agent),
            nas=self._nas(f"{key}.nas", each.nas) if each.nas else "",
            violates=tuple(sorted(set(each.violates))),
            raises=each.raises,
            runs=tuple((name, str(count)) for name, count in each.runs.items()),
            counts=tuple((name, str(count)) for name, count in each.counts.items()),
            jobs=tuple(
                (job_id, name, str(count))
                for job_id, runs in each.jobs.items()
                for name, count in runs.items()
            ),
        )

    def _wire(self, key: str, store: str, agent: str) -> str:
        if store and agent in AGENTS and agent != CHRONOS.name:
            raise self._refuse(key, f"all that ships is simulated, and the agent {agent} is a model alone")
        if store and store not in STORES:
            raise self._refuse(key, f"there is no store {expected(store, STORES)}")
        return store

    def _check_keys(self, key: str, given: Any, known: Any) -> None:
        for each in given:
            if each not in known:
                raise self._refuse(f"{key}.{each}", f"there is no {expected(each, list(known))}")


def _as_json(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime | date) else value


# --- those that ship --------------------------------------------------------------------------


def folder() -> Path:
    """Return where the scenarios are that ship."""
    return Path(str(files("simulator") / "scenarios"))


def names() -> tuple[str, ...]:
    """Return the names of the scenarios that ship: those of no incident first."""
    found = sorted(entry.stem for entry in folder().glob("*.toml"))
    return tuple(sorted(found, key=lambda name: (is_of_an_incident(name), _in_order(name))))


def is_of_an_incident(name: str) -> bool:
    """Return whether the scenario of that name is called after an incident."""
    return re.fullmatch(r"[a-z]\d+(-.*)?", name) is not None


def _in_order(name: str) -> tuple[str, int, str]:
    found = re.match(r"([a-z])(\d+)", name) if is_of_an_incident(name) else None
    return (name, 0, "") if found is None else (found[1], int(found[2]), name)


def shipped(name: str) -> Scenario:
    """Return the scenario of that name; see `names`."""
    return load(folder() / f"{name}.toml")
