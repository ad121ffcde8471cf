"""From a violation to the least that leads to it: fewer jobs, fewer days, and no fault that it does not need.

Each decision about each subject has a stream of its own, so that what is left out changes no other. What
remains is found by delta debugging (Zeller and Hildebrandt, 2002): halves are left out, then quarters, and
so on, until nothing can be left out alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from msgspec import Struct

from chronos.jobs.instants import DAY_US, SECOND_US, Instant
from chronos.values import evolve
from simulator import faults
from simulator.kernel import Choices
from simulator.scenario import Plan
from simulator.summary import Summary, summarize
from simulator.trace import Line, Tracer
from simulator.watch import Violation
from simulator.world import Setting, World

T = TypeVar("T")

# Boots and messages take other times where there are fewer of them.
_NEAR_US = 30 * SECOND_US

_FAULTS = {fault.name: fault for fault in faults.FAULTS}
_VARIATIONS = frozenset(variation.name for variation in faults.VARIATIONS)


class Strike(Struct, frozen=True, kw_only=True):
    """A fault that struck.

    Where less goes on, it is known again by how often it was asked about before, or by its time.

    Attributes:
        fault: which, by its name.
        subject: whom, by the number that the subject had in the whole fleet; -1 for nobody in particular.
        at_us: when.
        number: how often that was asked about this subject before.
        number_then: how often it was asked at that very instant before.
        drawn: which of the fault's options it is, by its number.
    """

    fault: str
    subject: int
    at_us: Instant
    number: int
    number_then: int
    drawn: int

    @property
    def then(self) -> tuple[Instant, int]:
        """When, and how often it was asked about then."""
        return self.at_us, self.number_then

    @property
    def option(self) -> Any:
        """Which of the fault's options it is."""
        return _FAULTS[self.fault].options[self.drawn]


class Shrunk(Struct, frozen=True, kw_only=True):
    """The least that leads to a violation.

    Attributes:
        violation: as it comes of that.
        jobs: the ids of the jobs that it needs.
        days: how many days.
        needs: the faults that it needs, in the order of time.
        varies: whether the times of messages, boots and runs have to vary.
        lines: what happens, up to the violation.
        plan: the same as a plan, but for the faults.
        summary: what had come of it by then.
        of_jobs: how many jobs there were.
        of_faults: how many faults struck before it.
        tries: how many simulations that took.
    """

    violation: Violation
    jobs: tuple[str, ...]
    days: int
    needs: tuple[Strike, ...]
    varies: bool
    lines: tuple[Line, ...]
    plan: Plan
    summary: Summary
    of_jobs: int
    of_faults: int
    tries: int


class _Found(Exception):
    """The violation that is looked for has come."""

    def __init__(self, violation: Violation) -> None:
        super().__init__()
        self.violation = violation


class _Attempt(Struct, frozen=True, kw_only=True):
    """What is left: jobs by their numbers, days, machines, faults (None for all), and what varies.

    With `is_near`, a fault strikes where it is first asked about near its time.
    """

    jobs: tuple[int, ...]
    days: int
    machines: int
    strikes: frozenset[Strike] | None = None
    varies: bool = True
    is_near: bool = False


class _Choices:
    """The decisions of the whole world, of which only some faults strike."""

    def __init__(self, inner: Choices, attempt: _Attempt, of_jobs: int) -> None:
        self._inner, self._attempt = inner, attempt
        self._of_jobs = of_jobs
        self._asked: Counter[tuple[str, int]] = Counter()
        self._asked_then: dict[tuple[str, int], tuple[Instant, int]] = {}
        self._wanted: dict[tuple[Any, ...], Strike] | None = None
        self._left = sorted(attempt.strikes or (), key=lambda each: each.at_us)
        if attempt.strikes is not None:
            by_number = {(each.fault, each.subject, each.number): each for each in attempt.strikes}
            by_time = {
                (each.fault, each.subject, each.at_us, each.number_then): each for each in attempt.strikes
            }
            self._wanted = {**by_number, **by_time}
        self.struck: list[Strike] = []
        self.now_us: Callable[[], Instant]

    def choose(self, label: str, options: int, subject: int) -> int:
        """Return what the whole world would, unless that is left out."""
        whole = self._whole(subject)
        drawn = self._inner.choose(label, options, whole)
        if label in _VARIATIONS:
            return drawn if self._attempt.varies else 0
        if label not in _FAULTS:
            return min(drawn, options - 1)
        return self._strikes(label, whole, drawn)

    def _strikes(self, label: str, subject: int, drawn: int) -> int:
        """Return how a fault strikes, 0 for not at all."""
        key, now_us = (label, subject), self.now_us()
        number, then = self._asked[key], self._asked_then.get(key, (now_us, 0))
        number_then = then[1] if then[0] == now_us else 0
        self._asked[key], self._asked_then[key] = number + 1, (now_us, number_then + 1)
        if self._wanted is not None:
            if self._attempt.is_near:
                wanted = self._near(label, subject, now_us)
            else:
                wanted = self._wanted.get((*key, number)) or self._wanted.get((*key, now_us, number_then))
            drawn = 0 if wanted is None else wanted.drawn
        if drawn:
            self.struck.append(
                Strike(
                    fault=label,
                    subject=subject,
                    at_us=now_us,
                    number=number,
                    number_then=number_then,
                    drawn=drawn,
                )
            )
        return drawn

    def _near(self, label: str, subject: int, now_us: Instant) -> Strike | None:
        """Return a fault that shall strike about now, once."""
        for each in self._left:
            is_meant = (each.fault, each.subject) == (label, subject)
            if is_meant and abs(each.at_us - now_us) <= _NEAR_US:
                self._left.remove(each)
                return each
        return None

    def _whole(self, subject: int) -> int:
        """Return the number that a subject had in the whole fleet."""
        jobs = self._attempt.jobs
        if subject < 0:
            return subject
        return jobs[subject] if subject < len(jobs) else subject - len(jobs) + self._of_jobs


class Shrinking:
    """Looks for the least that leads to a violation.

    Args:
        plan: in which it was found.
        seed: with which seed.
        wanted: the property that is violated; the first one that is, when None.
    """

    def __init__(self, plan: Plan, seed: int, wanted: str | None = None) -> None:
        self._plan, self._seed, self._wanted = plan, seed, wanted
        self._setting = plan.setting(seed)
        self._job_id: str | None = None
        self.tries = 0

    def shrink(self) -> Shrunk | None:
        """Return the least; None when nothing is violated."""
        jobs = tuple(range(len(self._setting.jobs)))
        whole = _Attempt(jobs=jobs, days=self._plan.days, machines=self._plan.machines)
        found = self._try(whole)
        if found is None:
            return None
        violation, struck = found
        self._wanted, self._job_id = violation.property, violation.job_id
        best = self._fewer_faults(self._fewer_days(whole, violation))
        # Where nothing varies, what is left happens when it did before, whatever else is left out.
        for fewer in (evolve(best, varies=False), evolve(best, machines=1)):
            best = self._settled(fewer) or best
        best = self._fewer_jobs(best)
        best = self._fewer_faults(self._settled(best) or best)
        if best.varies:
            best = self._settled(evolve(best, varies=False, is_near=True)) or best
        self._found_least = best
        return self._told(best, len(struck))

    def is_violated_by(self, needs: Sequence[Strike]) -> bool:
        """Return whether these faults lead to the violation, in the least that was found."""
        return self._holds(evolve(self._found_least, strikes=frozenset(needs)))

    # --- one try ---

    def _try(self, attempt: _Attempt, tracer: Tracer | None = None) -> tuple[Violation, list[Strike]] | None:
        """Return the violation that an attempt leads to, with what struck before; None when it does not."""
        self.tries += 1
        whole = self._setting
        setting: Setting = evolve(
            whole,
            jobs=tuple(whole.jobs[number] for number in attempt.jobs),
            duration_us=attempt.days * DAY_US,
            machines=attempt.machines,
        )
        choices = _Choices(self._plan.choices(self._seed), attempt, len(whole.jobs))
        world = self._world = World(setting, choices, tracer=tracer)
        choices.now_us = lambda: world.kernel.now_us
        world.watch.told = self._found
        try:
            world.run()
        except _Found as found:
            return found.violation, choices.struck
        return None

    def _found(self, violation: Violation) -> None:
        if self._wanted in (None, violation.property) and self._job_id in (None, violation.job_id):
            raise _Found(violation)

    def _holds(self, attempt: _Attempt) -> bool:
        return self._try(attempt) is not None

    def _settled(self, attempt: _Attempt) -> _Attempt | None:
        """Return an attempt with its faults as they strike in it; None when it leads elsewhere."""
        found = self._try(attempt)
        return None if found is None else evolve(attempt, strikes=frozenset(found[1]), is_near=False)

    # --- less ---

    def _fewer_days(self, attempt: _Attempt, violation: Violation) -> _Attempt:
        days = (violation.at_us - self._setting.start_us) // DAY_US + 1
        fewer = evolve(attempt, days=int(days))
        return fewer if days < attempt.days and self._holds(fewer) else attempt

    def _fewer_jobs(self, attempt: _Attempt) -> _Attempt:
        wanted = next((n for n in attempt.jobs if self._setting.jobs[n].id == self._job_id), attempt.jobs[0])
        others = [number for number in attempt.jobs if number != wanted]
        if not others:
            return attempt

        def fewer(kept: Sequence[int]) -> _Attempt | None:
            exact = evolve(attempt, jobs=tuple(sorted((wanted, *kept))))
            near = evolve(exact, is_near=True)
            return next((each for each in (exact, near) if self._holds(each)), None)

        return fewer(_least(others, lambda kept: fewer(kept) is not None)) or attempt

    def _fewer_faults(self, attempt: _Attempt) -> _Attempt:
        found = self._try(attempt)
        assert found is not None

        def holds(kept: Sequence[Strike]) -> bool:
            return self._holds(evolve(attempt, strikes=frozenset(kept)))

        return evolve(attempt, strikes=frozenset(_least(found[1], holds)))

    def _told(self, attempt: _Attempt, of_faults: int) -> Shrunk:
        lines: list[Line] = []
        jobs = tuple(self._setting.jobs[number].id for number in attempt.jobs)
        found = self._try(attempt, Tracer(lines.append, jobs))
        assert found is not None
        violation, struck = found
        return Shrunk(
            violation=violation,
            jobs=jobs,
            days=attempt.days,
            needs=tuple(struck),
            varies=attempt.varies,
            lines=tuple(lines),
            plan=self._plan_of(attempt),
            summary=self._summary(),
            of_jobs=len(self._setting.jobs),
            of_faults=of_faults,
            tries=self.tries,
        )

    def _plan_of(self, attempt: _Attempt) -> Plan:
        fleet = self._plan.fleet
        jobs = tuple(self._setting.jobs[number] for number in attempt.jobs)
        return evolve(
            self._plan, fleet=evolve(fleet, jobs=jobs), days=attempt.days, machines=attempt.machines
        )

    def _summary(self) -> Summary:
        """Return what has come of the latest try so far."""
        world = self._world
        on_us = world.on_by_now_us()
        for machine in world.machines:
            machine.close()
        return summarize(
            world.kernel,
            world.watch,
            world.nas,
            world.machines,
            (),
            start_us=self._setting.start_us,
            end_us=world.kernel.now_us,
            on_us=on_us,
        )


def _least(items: Sequence[T], holds: Callable[[Sequence[T]], bool]) -> list[T]:
    """Return some of *items* that hold, of which none can be left out alone; all of them hold."""
    kept = list(items)
    if kept and holds(()):
        return []
    parts = 2
    while len(kept) > 1:
        size = -(-len(kept) // parts)
        for begin in range(0, len(kept), size):
            rest = kept[:begin] + kept[begin + size :]
            if holds(rest):
                kept, parts = rest, max(parts - 1, 2)
                break
        else:
            if parts >= len(kept):
                break
            parts = min(parts * 2, len(kept))
    return kept
