"""Reads what a scenario's file writes down to happen: faults at their time, and what people do."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TypeVar

from chronos.cli.options import expected
from chronos.errors import ChronosError
from chronos.jobs.instants import DAY_US, MINUTE_US, SECOND_US, Instant, format_instant, microseconds_of
from chronos.jobs.schedule import Cron, Schedule, parse_schedule
from simulator import faults
from simulator.conditions_options import clock_us, span_us
from simulator.fleet import Fleet
from simulator.scenario import ENDS_BEFORE_US
from simulator.scenario_forms import DeedForm, FaultForm, Form, ScenarioError, description_of
from simulator.script import GIVEN, TO_A_JOB, TO_A_MACHINE, Deed, Do, Script, Stroke

T = TypeVar("T")

# The longest that something lasts, microseconds, and how it is spelt.
_LONGEST = (30 * DAY_US, "720h")
# When the agent has been deployed, and somebody may do something.
_DEPLOYED_US = 5 * MINUTE_US

# The faults that are asked about by the clock, each with how a file says it instead.
DONE = {
    faults.NAS_OUTAGE.name: 'conditions.outage = "nas=..."',
    faults.HOST_OUTAGE.name: 'conditions.outage = "host=..."',
    faults.NAS_REFUSAL.name: f"[[change]] {Do.REFUSE}",
    faults.KILL.name: f"[[change]] {Do.KILL}",
    faults.REPLACEMENT.name: f"[[change]] {Do.REPLACE}",
    faults.STOP.name: f"[[change]] {Do.STOP}",
    faults.CHANGE.name: f"[[change]] {Do.PAUSE}, {Do.REMOVE}, {Do.EDIT} or {Do.RUN}",
}
# The others, each with how its options are spelt; of a route, the machines are.
STRIKING: dict[str, tuple[str | None, ...]] = {
    fault.name: tuple(None if option is None else faults.spelt(option) for option in fault.options)
    for fault in faults.FAULTS
    if fault.name not in DONE
}
STRIKING[faults.ROUTE.name] = ()
# Of the others, those that strike machines alone, and those that strike either: messages about a job, or
# about all of them. What is left strikes jobs.
_OF_MACHINES = frozenset({faults.SLOW_BOOT.name, faults.CLOCK.name})
_OF_EITHER = frozenset({faults.CRASH.name, faults.REQUEST.name, faults.REPLY.name, faults.NAS_BUSY.name})


def whom(fault: str) -> tuple[str, ...]:
    """Return what the fault of that name strikes: a job, a machine, or either."""
    if fault in _OF_EITHER:
        return ("job", "machine")
    return ("machine",) if fault in _OF_MACHINES else ("job",)


class Written:
    """What a file writes down to happen to its jobs and machines."""

    def __init__(self, source: str, form: Form, loaded: Fleet) -> None:
        self._source, self._form = source, form
        self._jobs, self._ids, self._start_us = loaded.jobs, loaded.job_ids, loaded.start_us

    def script(self) -> Script:
        """Return all of it.

        Raises:
            ScenarioError: some of it cannot happen.
        """
        deeds = tuple(self._deed(*each) for each in enumerate(self._form.change, 1))
        self._check_removed(deeds)
        strokes = tuple(self._stroke(*each) for each in enumerate(self._form.fault, 1))
        return Script(strokes=strokes, deeds=deeds)

    def _refuse(self, key: str, problem: object) -> ScenarioError:
        return ScenarioError(self._source, key, str(problem))

    def _or_refused(self, key: str, make: Callable[[], T]) -> T:
        try:
            return make()
        except (ChronosError, argparse.ArgumentTypeError) as error:
            raise self._refuse(key, error) from None

    def _at(self, key: str, at_us: Instant, first_us: Instant) -> Instant:
        end_us = self._start_us + self._form.days * DAY_US
        if not first_us <= at_us < end_us:
            within = f"{format_instant(first_us)} to {format_instant(end_us)}"
            problem = f"expected an instant within the calendar, {within}"
            raise self._refuse(f"{key}.at", f"{problem}, got {format_instant(at_us)}")
        return at_us

    def _machine(self, key: str, machine: int | None, is_asked: bool, what: str) -> int:
        if machine is not None and not is_asked:
            raise self._refuse(f"{key}.machine", f"expected no machine for {what}, got {machine}")
        if machine is not None and machine >= self._form.machines:
            raise self._refuse(
                f"{key}.machine",
                f"expected a machine from 0 to {self._form.machines - 1}, as machines says, got {machine}",
            )
        return machine or 0

    def _job(self, key: str, job: str | None, may: bool, must: bool, what: str) -> str | None:
        if job is not None and not may:
            raise self._refuse(f"{key}.job", f"expected no job for {what}, got {job!r}")
        if job is None and must:
            raise self._refuse(f"{key}.job", f"expected a job for {what}; it is missing")
        if job is not None and job not in self._ids:
            raise self._refuse(f"{key}.job", f"there is no job {expected(job, self._ids)}")
        return job

    # --- faults ---

    def _stroke(self, number: int, each: FaultForm) -> Stroke:
        key, what = f"fault[{number}]", each.what
        if what not in STRIKING:
            done = f"; {what} is written as {DONE[what]}" if what in DONE else ""
            raise self._refuse(f"{key}.what", f"there is no fault {expected(what, STRIKING)}{done}")
        options = STRIKING[what] or tuple(str(machine) for machine in range(self._form.machines))
        words = [word for word in options if word is not None]
        if each.how not in words:
            wanted = "none" if words == [""] else f"one of: {', '.join(words)}"
            raise self._refuse(f"{key}.how", f"expected {wanted}; got {each.how!r}")
        of = whom(what)
        return Stroke(
            fault=what,
            drawn=options.index(each.how),
            job=self._job(key, each.job, "job" in of, of == ("job",), what),
            machine=self._machine(key, each.machine, "machine" in of and each.job is None, what),
            at_us=self._at(key, microseconds_of(each.at), self._start_us),
            number=each.number,
            text=f"{key}: {what} {each.how}".strip(),
        )

    # --- deeds ---

    def _deed(self, number: int, each: DeedForm) -> Deed:
        key = f"change[{number}]"
        if each.do not in list(Do):
            raise self._refuse(f"{key}.do", f"there is no {expected(each.do, list(Do))}")
        do = Do(each.do)
        at_us = self._at(key, microseconds_of(each.at), self._start_us + _DEPLOYED_US)
        job = self._job(key, each.job, do in TO_A_JOB, do in TO_A_JOB, do)
        machine = self._machine(key, each.machine, do in TO_A_MACHINE, do)
        for name, of in GIVEN.items():
            is_given = bool(getattr(each, name))
            if is_given and do not in of:
                raise self._refuse(f"{key}.{name}", f"expected none for {do}")
            if not is_given and do in of:
                raise self._refuse(
                    f"{key}.{name}", f"expected {description_of(DeedForm, name)}, for {do}; it is missing"
                )
        self._check_tokens(key, do, each.purpose)
        return Deed(
            do=do,
            at_us=at_us,
            job=job,
            machine=machine,
            lasts_us=self._lasts_us(f"{key}.lasts", each.lasts, at_us),
            schedule=self._or_refused(f"{key}.schedule", lambda: self._schedule(each, at_us)),
            off_us=self._or_refused(f"{key}.off", lambda: clock_us(each.off) if each.off else 0),
            purpose=each.purpose,
            names_us=None if each.names is None else self._names(key, microseconds_of(each.names)),
        )

    def _lasts_us(self, key: str, lasts: str, at_us: Instant) -> int:
        if not lasts:
            return 0
        lasts_us = self._or_refused(key, lambda: span_us(lasts, 1, _LONGEST))
        if at_us + lasts_us > self._start_us + self._form.days * DAY_US:
            raise self._refuse(key, f"expected an end within the calendar, got {lasts!r}")
        return lasts_us

    def _check_tokens(self, key: str, do: Do, purpose: str) -> None:
        """Make sure that whatever concerns tokens is expected of what spells them out."""
        if purpose and do is not Do.FIRE:
            raise self._refuse(f"{key}.purpose", f"expected none for {do}")
        models = [number for number, each in enumerate(self._form.expect, 1) if not each.wire]
        if models and (purpose or do is Do.ROTATE):
            name = f"{key}.purpose" if purpose else f"{key}.do"
            problem = f'a model has no tokens; expected wire in expect[{models[0]}], such as wire = "memory"'
            raise self._refuse(name, problem)

    def _schedule(self, each: DeedForm, at_us: Instant) -> Schedule | None:
        """Return the new schedule of an edit, in the time zone that the job's has."""
        if not each.schedule:
            return None
        edited = next(job for job in self._jobs if job.id == each.job)
        tz = edited.schedule.tz if isinstance(edited.schedule, Cron) else "UTC"
        return parse_schedule(each.schedule, now_us=at_us, tz=tz)

    def _names(self, key: str, names_us: Instant) -> Instant:
        if names_us % SECOND_US or not 0 <= names_us < ENDS_BEFORE_US:
            problem = "expected an instant in whole seconds, of the years 1970 to 9899"
            raise self._refuse(f"{key}.names", f"{problem}, got {format_instant(names_us)}")
        return names_us

    def _check_removed(self, deeds: Sequence[Deed]) -> None:
        """Make sure that what is created was removed before, and that nobody changes what is not there."""
        removed: set[str] = set()
        for number, deed in sorted(enumerate(deeds, 1), key=lambda each: each[1].at_us):
            if deed.job is None or deed.do is Do.FIRE:
                continue
            key = f"change[{number}].do"
            if deed.do is Do.CREATE and deed.job not in removed:
                raise self._refuse(
                    key, f"expected that {deed.job!r} was removed before somebody creates it again"
                )
            if deed.do is not Do.CREATE and deed.job in removed:
                raise self._refuse(
                    key, f"expected that {deed.job!r} is there, and it was removed; got {deed.do}"
                )
            if deed.do is Do.REMOVE:
                removed.add(deed.job)
            removed -= {deed.job} if deed.do is Do.CREATE else set()
