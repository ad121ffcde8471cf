"""Scenarios as files: TOML, with one place for each key, its type and its words.

What a file says is told by the structs here, from which the schema in the documents is made. An error names
the file, the key and what was expected.
"""

from __future__ import annotations

import argparse
import re
import tomllib
from collections.abc import Callable
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from chronos.agent.declaring import JobSpec
from chronos.cli.console import BadUsage
from chronos.cli.options import Parser, expected
from chronos.errors import ChronosError, JobsFileError
from chronos.jobs.instants import MINUTE_US, Instant, format_instant, microseconds_of
from chronos.jobs.job import Job, Result
from chronos.jobs.policy import Policy
from chronos.jobs.schedule import parse_schedule
from chronos.stores.policy import read_policy
from chronos.stores.reader import Reader
from simulator import conditions_options, faults, fleet
from simulator.conditions import NOTHING_ASKED, Conditions
from simulator.conditions_options import clock_us, span_us
from simulator.promises import promises_of
from simulator.properties import PROPERTIES
from simulator.scenario import MAX_DAYS, Expectation, Scenario
from simulator.script import LASTING, TO_A_JOB, Deed, Do, Script, Stroke
from simulator.wire import STORES

T = TypeVar("T")

# The calendar of a scenario that has jobs of its own begins here, unless it says where.
START = "2026-03-02T00:00:00Z"

# A shape that a count of the summary shall have: 3, ">=1".
Count = int | Annotated[str, Meta(pattern="^(>=|<=|==) ?[0-9]{1,9}$", description="such as >=1")]


# What the summary counts.
_COUNTS = ("fires", "refused", "wakes", "wakes_for_nothing", "provision", "cancel", "list")


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
    machine: Annotated[int, Meta(ge=0, description="which machine")] = 0
    number: Annotated[int, Meta(ge=1, description="of those that come next, which one")] = 1


class DeedForm(_Form, frozen=True, kw_only=True):
    """Something that somebody does at its time: `[[change]]`."""

    do: Annotated[str, Meta(description="what")]
    at: Annotated[datetime, Meta(tz=True, description="when")]
    job: Annotated[str, Meta(description="to which job")] | None = None
    machine: Annotated[int, Meta(ge=0, description="to which machine")] = 0
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
    counts: Annotated[
        dict[str, Count],
        Meta(description="fires, refused, wakes, wakes_for_nothing, provision, cancel, list"),
    ] = field(default_factory=dict)
    raises: Annotated[bool, Meta(description="whether it raises exceptions")] = False


class Form(_Form, frozen=True, kw_only=True):
    """A scenario."""

    about: Annotated[str, Meta(description="what it shows, in a sentence", min_length=1)]
    incident: Annotated[str, Meta(description="the incident that it shows")] = ""
    fleet: Annotated[str, Meta(description="a shipped fleet, or a jobs file beside this one")] = ""
    start: Annotated[datetime, Meta(tz=True, description="where the calendar begins")] | None = None
    days: Annotated[int, Meta(ge=1, le=MAX_DAYS, description="how long it lasts")]
    seed: Annotated[int, Meta(ge=0, description="of what is left to chance")] = 0
    faults: Literal["none", "light", "heavy"] = "none"
    nas: Annotated[str, Meta(description="minimal, hardened, or without:PROMISE,...")] = "hardened"
    machines: Annotated[int, Meta(ge=1, le=16, description="how many share the store")] = 1
    policies: Literal["own", "random"] = "own"
    agent: Annotated[str, Meta(description="the agent, where nothing is expected of any")] = "chronos"
    conditions: Annotated[
        dict[str, Any], Meta(description="the options of `run` with their values: outage, boot, run, ...")
    ] = field(default_factory=dict)
    job: list[JobForm] = field(default_factory=list)
    fault: list[FaultForm] = field(default_factory=list)
    change: list[DeedForm] = field(default_factory=list)
    expect: list[ExpectForm] = field(default_factory=list)


_TABLES: dict[str, type[Struct]] = {
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


def load(path: Path) -> Scenario:
    """Return the scenario of a file.

    Raises:
        ScenarioError: it cannot be read, or is none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ScenarioError(str(path), "", f"cannot be read: {reason}") from None
    return _File(str(path), path).scenario(path.stem, text)


class _File:
    """A file that is being read."""

    def __init__(self, source: str, path: Path) -> None:
        self._source, self._path = source, path
        self._ids: tuple[str, ...] = ()

    def _refuse(self, key: str, problem: object) -> ScenarioError:
        return ScenarioError(self._source, key, str(problem))

    def scenario(self, name: str, text: str) -> Scenario:
        """Return the scenario that *text* tells."""
        form = self._form(text)
        loaded = self._fleet(form)
        self._ids = loaded.job_ids
        return Scenario(
            name=name,
            about=form.about,
            incident=form.incident,
            fleet=form.fleet,
            own=None if form.fleet in fleet.shipped() else loaded,
            start_us=None if form.start is None else microseconds_of(form.start),
            days=form.days,
            seed=form.seed,
            faults=form.faults,
            nas=self._nas("nas", form.nas),
            agent=form.expect[0].agent if form.expect else form.agent,
            machines=form.machines,
            policies=form.policies,
            conditions=self._conditions(form.conditions),
            script=Script(
                strokes=tuple(self._stroke(form, *each) for each in enumerate(form.fault, 1)),
                deeds=tuple(self._deed(form, loaded.start_us, *each) for each in enumerate(form.change, 1)),
            ),
            expects=tuple(self._expected(*each) for each in enumerate(form.expect, 1)),
        )

    def _form(self, text: str) -> Form:
        try:
            raw = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise self._refuse("", f"not TOML: {error}") from None
        for key in raw:
            self._check_name("", key, Form)
        for table, kind in (
            ("job", JobForm),
            ("fault", FaultForm),
            ("change", DeedForm),
            ("expect", ExpectForm),
        ):
            for number, each in enumerate(raw[table] if isinstance(raw.get(table), list) else (), 1):
                for key in each if isinstance(each, dict) else ():
                    self._check_name(f"{table}[{number}].", key, kind)
        try:
            return msgspec.convert(raw, Form)
        except msgspec.ValidationError as error:
            problem, _, where = str(error).partition(" - at `$")
            key = re.sub(r"\[(\d+)\]", lambda found: f"[{int(found[1]) + 1}]", where.strip("`.")).lstrip(".")
            raise self._refuse(key, problem[:1].lower() + problem[1:]) from None

    def _check_name(self, place: str, key: str, kind: type[Struct]) -> None:
        names = [each.name for each in msgspec.structs.fields(kind)]
        if key not in names:
            raise self._refuse(f"{place}{key}", f"there is no key {expected(key, names)}")

    # --- jobs ---

    def _fleet(self, form: Form) -> fleet.Fleet:
        start_us = None if form.start is None else microseconds_of(form.start)
        if bool(form.fleet) == bool(form.job):
            raise self._refuse("fleet", "expected a fleet, or jobs of its own as [[job]], and not both")
        if form.job:
            own_start_us = microseconds_of(datetime.fromisoformat(START)) if start_us is None else start_us
            jobs = tuple(self._job(number, job, own_start_us) for number, job in enumerate(form.job, 1))
            if len({job.id for job in jobs}) < len(jobs):
                raise self._refuse("job", "expected another id for each job")
            return fleet.Fleet(name=self._source, jobs=jobs, start_us=own_start_us)
        if form.fleet in fleet.shipped():
            return fleet.load_shipped(form.fleet, start_us=start_us)
        if not form.fleet.endswith(".json"):
            shipped = fleet.shipped()
            raise self._refuse("fleet", f"there is no fleet {expected(form.fleet, shipped)}, or a file.json")
        try:
            return fleet.load_file(self._path.parent / form.fleet, start_us=start_us)
        except (JobsFileError, OSError) as error:
            raise self._refuse("fleet", error) from None

    def _job(self, number: int, form: JobForm, start_us: Instant) -> Job:
        key = f"job[{number}]"
        try:
            policy = read_policy(
                Reader(source=self._source, job=None, raw=form.policy, path=f"{key}.policy.")
            )
        except JobsFileError as error:
            raise ScenarioError(str(error), "", "") from None
        return self._or_refused(key, lambda: self._declared(form, policy, start_us))

    def _declared(self, form: JobForm, policy: Policy, start_us: Instant) -> Job:
        spec = JobSpec(form.id, form.schedule, tz=form.tz, times=form.times, policy=policy)
        return spec.declared(start_us).job

    def _or_refused(self, key: str, make: Callable[[], T]) -> T:
        try:
            return make()
        except (ChronosError, ValueError, TypeError, argparse.ArgumentTypeError) as error:
            raise self._refuse(key, error) from None

    # --- around them ---

    def _nas(self, key: str, text: str) -> str:
        self._or_refused(key, lambda: promises_of(text))
        return text

    def _conditions(self, given: dict[str, Any]) -> Conditions:
        if not given:
            return NOTHING_ASKED
        parser = Parser(prog="")
        conditions_options.add_conditions(parser)
        names = [action.dest for action in parser._actions if action.option_strings]
        arguments = []
        for key, values in given.items():
            if key not in names:
                raise self._refuse(f"conditions.{key}", f"there is no key {expected(key, names)}")
            for value in values if isinstance(values, list) else [values]:
                if not isinstance(value, str):
                    raise self._refuse(f"conditions.{key}", f"expected text, got {value!r}")
                arguments.append(f"--{key}={value}")
        try:
            return conditions_options.conditions(parser.parse_args(arguments))
        except BadUsage as error:
            problem = str(error).removesuffix(" (see:  --help)").removeprefix("argument --")
            raise self._refuse("conditions", problem) from None

    # --- what happens ---

    def _stroke(self, form: Form, number: int, each: FaultForm) -> Stroke:
        key = f"fault[{number}]"
        if each.what not in _STRIKING:
            raise self._refuse(f"{key}.what", f"there is no fault {expected(each.what, _STRIKING)}")
        options = _STRIKING[each.what] or tuple(str(machine) for machine in range(form.machines))
        words = [word for word in options if word is not None]
        if each.how not in words:
            raise self._refuse(f"{key}.how", f"expected one of {', '.join(words)}; got {each.how!r}")
        self._check_whom(form, key, each)
        return Stroke(
            fault=each.what,
            drawn=options.index(each.how),
            job=each.job,
            machine=each.machine,
            at_us=microseconds_of(each.at),
            number=each.number,
            text=f"{key}: {each.what} {each.how}".strip(),
        )

    def _check_whom(self, form: Form, key: str, each: FaultForm | DeedForm) -> None:
        if each.job is not None and each.job not in self._ids:
            raise self._refuse(f"{key}.job", f"there is no job {expected(each.job, self._ids)}")
        if each.machine >= form.machines:
            raise self._refuse(f"{key}.machine", f"expected less than {form.machines}, got {each.machine}")

    def _deed(self, form: Form, start_us: Instant, number: int, each: DeedForm) -> Deed:
        key = f"change[{number}]"
        if each.do not in list(Do):
            raise self._refuse(f"{key}.do", f"there is no {expected(each.do, list(Do))}")
        do, at_us = Do(each.do), microseconds_of(each.at)
        first_us, end_us = start_us + 5 * MINUTE_US, start_us + form.days * 86_400_000_000
        if not first_us <= at_us < end_us:
            within = f"{format_instant(first_us)} to {format_instant(end_us)}"
            raise self._refuse(f"{key}.at", f"expected an instant from {within}, got {format_instant(at_us)}")
        if (do in TO_A_JOB) != (each.job is not None):
            raise self._refuse(f"{key}.job", f"expected {'a' if do in TO_A_JOB else 'no'} job for {do}")
        self._check_whom(form, key, each)
        if (do in LASTING) != bool(each.lasts):
            raise self._refuse(f"{key}.lasts", f"expected {'a' if do in LASTING else 'no'} time for {do}")
        for name, of, given in (
            ("schedule", Do.EDIT, each.schedule),
            ("off", Do.CLOCK, each.off),
            ("names", Do.FIRE, each.names),
        ):
            if (do is of) != bool(given):
                raise self._refuse(f"{key}.{name}", f"expected {'one' if do is of else 'none'} for {do}")
        lasts_us = self._or_refused(
            f"{key}.lasts", lambda: span_us(each.lasts, 1, (2_592_000_000_000, "720h")) if each.lasts else 0
        )
        schedule = self._or_refused(
            f"{key}.schedule", lambda: parse_schedule(each.schedule, now_us=at_us) if each.schedule else None
        )
        return Deed(
            do=do,
            at_us=at_us,
            job=each.job,
            machine=each.machine,
            lasts_us=lasts_us,
            schedule=schedule,
            off_us=self._or_refused(f"{key}.off", lambda: clock_us(each.off) if each.off else 0),
            purpose=each.purpose,
            names_us=None if each.names is None else microseconds_of(each.names),
        )

    # --- what is expected ---

    def _expected(self, number: int, each: ExpectForm) -> Expectation:
        key = f"expect[{number}]"
        known = [each.id for each in PROPERTIES]
        for name in each.violates:
            if name not in known:
                raise self._refuse(f"{key}.violates", f"there is no property {expected(name, known)}")
        results = [str(result) for result in Result]
        self._check_keys(f"{key}.runs", each.runs, results)
        self._check_keys(f"{key}.counts", each.counts, _COUNTS)
        for job_id, runs in each.jobs.items():
            self._check_keys(f"{key}.jobs", [job_id], self._ids)
            self._check_keys(f"{key}.jobs.{job_id}", runs, results)
        return Expectation(
            agent=each.agent,
            wire=self._wire(f"{key}.wire", each.wire),
            nas=self._nas(f"{key}.nas", each.nas) if each.nas else "",
            violates=tuple(sorted(each.violates)),
            raises=each.raises,
            runs=tuple((name, str(count)) for name, count in each.runs.items()),
            counts=tuple((name, str(count)) for name, count in each.counts.items()),
            jobs=tuple(
                (job_id, name, str(count))
                for job_id, runs in each.jobs.items()
                for name, count in runs.items()
            ),
        )

    def _wire(self, key: str, store: str) -> str:
        if store and store not in STORES:
            raise self._refuse(key, f"there is no store {expected(store, STORES)}")
        return store

    def _check_keys(self, key: str, given: Any, known: Any) -> None:
        for each in given:
            if each not in known:
                raise self._refuse(f"{key}.{each}", f"there is no {expected(each, list(known))}")


# The faults that can be written down, each with how it is spelt; those that are asked about by the clock
# are done: see `simulator.script.Do`, and outages.
_BY_THE_CLOCK = (
    faults.NAS_OUTAGE,
    faults.HOST_OUTAGE,
    faults.NAS_REFUSAL,
    faults.KILL,
    faults.REPLACEMENT,
    faults.STOP,
    faults.CHANGE,
)
_STRIKING: dict[str, tuple[str | None, ...]] = {
    fault.name: tuple(None if option is None else faults.spelt(option) for option in fault.options)
    for fault in faults.FAULTS
    if fault not in _BY_THE_CLOCK
}
_STRIKING[faults.ROUTE.name] = ()


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
