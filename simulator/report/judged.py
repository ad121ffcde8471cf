"""Whether scenarios came out as expected, in lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from simulator.judging import Judged
from simulator.report.terminal import place
from simulator.report.words import counted, wrapped
from simulator.scenario import Scenario

# So many violations are told of each agent.
TOLD = 2


def scenario_lines(scenario: Scenario, judged: Sequence[Judged]) -> Iterator[str]:
    """Yield what came of a scenario with each agent, and whether that was expected."""
    incident = f" ({scenario.incident})" if scenario.incident else ""
    yield from wrapped("scenario", f"{scenario.name}{incident}: {scenario.about}")
    for each in judged:
        yield ""
        yield from wrapped("agent", f"{each.expected.whose}: {_came(each)}")
        runs = ", ".join(f"{count:,} {result}" for result, count in each.summary.runs.items() if count)
        yield f"runs       {runs or 'none'}"
        yield f"at work    {_at_work(each)}"
        told: Counter[str] = Counter()
        for violation in each.summary.violations:
            told[violation.property] += 1
            if told[violation.property] <= TOLD:
                yield f"violated   {violation.property}  {place(violation)}"
                yield from wrapped("", violation.message)
        yield from _differing(each)
    yield ""
    yield f"verdict    {verdict_of(judged)}"


def _at_work(each: Judged) -> str:
    summary = each.summary
    calls = ", ".join(f"{count:,} {name}" for name, count in summary.nas_calls.items())
    return f"{counted(summary.fires, 'delivery')}, {counted(summary.wakes, 'wake')}, {calls}"


def all_lines(judged: Sequence[Judged]) -> Iterator[str]:
    """Yield a line for each scenario and agent, and a count."""
    width = max((len(each.scenario) for each in judged), default=0)
    for each in judged:
        yield f"{each.scenario:{width}}  {each.expected.whose}: {_came(each)}"
        yield from _differing(each)
    scenarios = {each.scenario for each in judged}
    yield f"in all     {counted(len(scenarios), 'scenario')}, {counted(len(judged), 'simulation')}"
    yield f"verdict    {verdict_of(judged)}"


def _differing(each: Judged) -> Iterator[str]:
    for difference in each.differences:
        yield from wrapped("differs", difference)


def _came(each: Judged) -> str:
    violated = sorted({violation.property for violation in each.summary.violations})
    came = f"violates {', '.join(violated)}" if violated else each.summary.verdict
    return f"{came}; {'NOT AS EXPECTED' if each.differences else 'as expected'}"


def verdict_of(judged: Sequence[Judged]) -> str:
    """Return whether all came out as expected, in words."""
    differing = [each for each in judged if each.differences]
    if not differing:
        return "as expected"
    names = ", ".join(dict.fromkeys(each.scenario for each in differing))
    return f"not as expected: {counted(len(differing), 'simulation')}, of {names}"
