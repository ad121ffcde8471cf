"""What is told of many seeds: how many hold, the first violation of each property, and how seeds differ."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import attrs

from simulator.report.terminal import asked_lines, counted, of_policies, place, remark_lines
from simulator.report.words import seconds, wrapped
from simulator.scenario import Plan
from simulator.summary import Summary
from simulator.watch import Violation


def _worst_ms(summary: Summary) -> int:
    return max((each.worst_lateness_ms for each in summary.accounts), default=0)


# What differs from seed to seed, and how it is shown.
MEASURES: Mapping[str, tuple[Callable[[Summary], int], Callable[[int], str]]] = {
    "missed": (lambda summary: summary.runs["missed"], "{:,}".format),
    "worst lateness": (_worst_ms, lambda ms: seconds(ms // 100)),
    "up time": (lambda summary: summary.agent_up_seconds, "{:,} s".format),
    "wakes": (lambda summary: summary.wakes, "{:,}".format),
}


@attrs.define
class Sweep:
    """What is kept of many seeds, however many: counts, and the first violation of each property.

    Attributes:
        seeds: which were simulated.
        verdicts: how many seeds ended with each verdict.
        violated: by property, the first seed that violates it and its violation there.
        violated_seeds: by property, how many seeds violate it.
        violations: by property, how often it was violated.
        runs: how many occurrences ended with each result.
        totals: how many fires, wakes and events there were.
        measured: what is told of how seeds differ, each a value for each seed, in their order.
    """

    seeds: list[int] = attrs.field(factory=list)
    verdicts: Counter[str] = attrs.field(factory=Counter)
    violated: dict[str, tuple[int, Violation]] = attrs.field(factory=dict)
    violated_seeds: Counter[str] = attrs.field(factory=Counter)
    violations: Counter[str] = attrs.field(factory=Counter)
    runs: Counter[str] = attrs.field(factory=Counter)
    totals: Counter[str] = attrs.field(factory=Counter)
    measured: dict[str, array[int]] = attrs.field(factory=lambda: {name: array("q") for name in MEASURES})

    def add(self, seed: int, summary: Summary) -> None:
        """Count the *summary* of *seed*, which comes after those before it."""
        self.seeds[1:] = [seed]
        self.verdicts[summary.verdict] += 1
        self.violations.update(violation.property for violation in summary.violations)
        self.violated_seeds.update({violation.property for violation in summary.violations})
        for violation in summary.violations:
            self.violated.setdefault(violation.property, (seed, violation))
        self.runs.update(summary.runs)
        self.totals.update(fires=summary.fires, wakes=summary.wakes, events=summary.events)
        for name, (measure, _) in MEASURES.items():
            self.measured[name].append(measure(summary))

    def lines(self, plan: Plan, command: Callable[[int], str]) -> Iterator[str]:
        """Yield the lines that tell what came of them.

        Args:
            plan: what was simulated.
            command: returns what simulates one seed, and tells all of it.
        """
        yield (
            f"scenario   {plan.scenario}: {counted(len(plan.fleet.jobs), 'job')} of {plan.fleet.name}, "
            f"{counted(plan.days, 'day')}, faults {plan.faults}, "
            f"NAS {plan.nas}, agent {plan.agent}{of_policies(plan)}"
        )
        yield from asked_lines(plan)
        yield from remark_lines(plan)
        yield f"seeds      {self.seeds[0]} to {self.seeds[-1]}: " + ", ".join(
            f"{count} {verdict}" for verdict, count in sorted(self.verdicts.items())
        )
        total = self.verdicts.total()
        for name, (seed, first) in sorted(self.violated.items()):
            yield (
                f"violated   {name} in {self.violated_seeds[name]} of {counted(total, 'seed')}, "
                f"{counted(self.violations[name], 'time')}; first:"
            )
            yield from wrapped("", f"{place(first)}: {first.message}")
            yield f"           {command(seed)}"
        yield "runs       " + ", ".join(f"{count:,} {result}" for result, count in self.runs.items())
        yield "fires      " + ", ".join(
            counted(self.totals[name], word)
            for name, word in {"fires": "delivery", "wakes": "wake", "events": "event"}.items()
        )
        if total > 1:
            yield from self._spread(command)

    def _spread(self, command: Callable[[int], str]) -> Iterator[str]:
        """Yield a table of how seeds differ, and what simulates the worst of them."""
        yield f"spread     {'':18}{'median':>14}{'p95':>14}{'worst':>14}   with"
        worst_seeds = []
        for name, (_, shown) in MEASURES.items():
            values = self.measured[name]
            ordered = sorted(values)
            worst = self.seeds[0] + values.index(ordered[-1])
            last = len(ordered) - 1
            cells = (ordered[last // 2], ordered[-(-last * 95 // 100)], ordered[last])
            row = "".join(f"{shown(each):>14}" for each in cells)
            yield f"           {name:18}{row}   --seed {worst}"
            worst_seeds.append(worst)
        yield f"           {command(worst_seeds[0])}"
