"""The options that ask for conditions: how they are spelt, and what is told of one that makes no sense."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable

from chronos.cli.console import BadUsage
from chronos.cli.options import Parser, expected
from chronos.errors import ScheduleError
from chronos.jobs.instants import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    SECOND_US,
    Instant,
    format_instant,
    parse_instant,
)
from simulator import faults
from simulator.conditions import Conditions, Daily, Once, Outage, Party

STUCK, NEVER = "stuck", "never"

# A boot of hours is none, a run of more would not end with the calendar, and no clock is off by days. What
# stands idle for a day is always on where a job comes daily.
LONGEST_BOOT_US = HOUR_US
LONGEST_IDLE_US = DAY_US
LONGEST_RUN_US = 5 * HOUR_US
FARTHEST_CLOCK_US = DAY_US

_UNITS_US = {"ms": 1000, "s": SECOND_US, "m": MINUTE_US, "h": HOUR_US}
_SPAN = re.compile(r"(?:\d{1,9}(?:\.\d{1,3})?(?:ms|s|m|h))+", re.ASCII)
_PART = re.compile(r"([\d.]+)(ms|s|m|h)", re.ASCII)
_HOURS = re.compile(
    r"(?P<from>\d\d:\d\d(?::\d\d)?)-(?P<until>\d\d:\d\d(?::\d\d)?)(?P<offset>Z|[+-]\d\d:\d\d)?", re.ASCII
)

_CHANCE = re.compile(r"\d{1,9}(?:\.\d{1,9})?%?", re.ASCII)

_EXAMPLES = "such as nas=01:55-02:20 or nas=2026-10-03T01:55Z/2026-10-03T02:20Z"


def add_conditions(parser: Parser) -> None:
    """Add the options to *parser*."""
    group = parser.add_argument_group("what you ask for", "beside what goes wrong by chance")
    group.add_argument(
        "--outage",
        type=_outage,
        action="append",
        default=[],
        metavar="WHO=WHEN",
        help=(
            "WHO (nas, host or external) is away: every day, nas=01:55-02:20, in UTC or with an offset, "
            "nas=22:00-01:00+02:00; or once, nas=2026-10-03T01:55Z/2026-10-03T02:20Z; may be repeated"
        ),
    )
    group.add_argument(
        "--boot", type=boot, metavar="TIME", help="every boot takes so long, such as 90s; or is stuck"
    )
    group.add_argument(
        "--idle",
        type=idle,
        metavar="TIME",
        help="how long the host lets a machine stand idle before it stops it, such as 5m; or never",
    )
    group.add_argument(
        "--run",
        type=_run,
        action="append",
        default=[],
        metavar="[JOB=]TIME",
        help="every run, or every one of a job, takes so long: 20m, job-03=1h30m; may be repeated",
    )
    group.add_argument(
        "--clock",
        type=clock_us,
        metavar="TIME",
        help="the machine's clock is off by so much, all the time: +40s, or --clock=-40s",
    )
    _add_faults(group)


def _add_faults(group: argparse._ArgumentGroup) -> None:
    for name, what in (("only", "no others"), ("without", "none of them")):
        group.add_argument(
            f"--{name}",
            type=_names,
            action="extend",
            default=[],
            metavar="FAULT,...",
            help=f"of the faults of the level, {what}; by name, may be repeated",
        )
    group.add_argument(
        "--fault",
        type=_likelihood,
        action="append",
        default=[],
        metavar="FAULT=CHANCE",
        help="a fault is as likely as that each time, whatever the level: network.reply=1%%; may be repeated",
    )


def conditions(options: argparse.Namespace) -> Conditions:
    """Return what the options ask for; see `checked`.

    Raises:
        BadUsage: two options contradict each other.
    """
    everyone = [lasts_us for job_id, lasts_us in options.run if job_id is None]
    by_job = {job_id: lasts_us for job_id, lasts_us in options.run if job_id is not None}
    if len(everyone) > 1 or len(by_job) + len(everyone) < len(options.run):
        raise BadUsage("--run: expected one time for all jobs, and one for each job, got two")
    if len(dict(options.fault)) < len(options.fault):
        raise BadUsage("--fault: expected one chance for each fault, got two")
    asked = _asked(options, everyone, by_job)
    if getattr(options, "compare", False) and not asked.words():
        raise BadUsage("--compare: expected something to compare, such as --outage nas=01:55-02:20")
    return asked


def _asked(options: argparse.Namespace, everyone: list[int], by_job: dict[str, int]) -> Conditions:
    is_stuck = options.boot == STUCK
    return Conditions(
        outages=tuple(options.outage),
        boot_us=None if is_stuck else options.boot,
        boots_stuck=is_stuck,
        idle_us=None if options.idle == NEVER else options.idle,
        stays_up=options.idle == NEVER,
        run_us=everyone[0] if everyone else None,
        run_us_of=tuple(sorted(by_job.items())),
        clock_us=options.clock,
        only=tuple(sorted(set(options.only))),
        without=tuple(sorted(set(options.without))),
        likelihoods=tuple(sorted(options.fault)),
    )


def check(
    asked: Conditions,
    job_ids: Iterable[str],
    start_us: Instant,
    end_us: Instant,
    *,
    level: str,
    of_wire: bool,
) -> None:
    """Check what was asked for against the jobs, the calendar and the level of faults.

    Raises:
        BadUsage: a job does not exist, an outage lies outside the calendar, or a fault cannot happen.
    """
    if (asked.only or asked.without) and level == "none":
        name = "only" if asked.only else "without"
        raise BadUsage(f"--{name} is of the faults of a level, and there are none; expected --faults, too")
    for name in (*asked.only, *asked.without, *dict(asked.likelihoods)):
        if name in _OF_WIRE and not of_wire:
            raise BadUsage(f"{name} is a fault of the wire; expected --wire --wire-faults, too")
    known = list(job_ids)
    for job_id, _ in asked.run_us_of:
        if job_id not in known:
            raise BadUsage(f"--run: there is no job {expected(job_id, known)}")
    for each in asked.outages:
        when = each.when
        if isinstance(when, Once) and (when.from_us >= end_us or when.until_us <= start_us):
            calendar = f"{format_instant(start_us)} to {format_instant(end_us)}"
            raise BadUsage(
                f"--outage {each.party}={when.text}: expected a time within the calendar, {calendar}"
            )


# --- one option each ------------------------------------------------------------------------


def span_us(text: str, least_us: int, most: tuple[int, str]) -> int:
    """Return the duration that *text* is, such as 90s or 1h30m, microseconds.

    Args:
        text: numbers, each with ms, s, m or h.
        least_us: the shortest there may be.
        most: the longest, and how it is spelt.

    Raises:
        argparse.ArgumentTypeError: it is none, or not within the bounds.
    """
    us = -1
    if _SPAN.fullmatch(text):
        us = round(sum(float(number) * _UNITS_US[unit] for number, unit in _PART.findall(text)))
    if not least_us <= us <= most[0]:
        least = "more than nothing" if least_us else "nothing"
        raise argparse.ArgumentTypeError(
            f"expected a time such as 90s, 20m or 1h30m, {least} and {most[1]} at most, got {text!r}"
        )
    return us


def boot(text: str) -> int | str:
    """Return how long a boot takes, microseconds, or `STUCK`; raises as `span_us` does."""
    return _span_or(STUCK, text, (LONGEST_BOOT_US, "1h"))


def idle(text: str) -> int | str:
    """Return how long a machine may stand idle, microseconds, or `NEVER`; raises as `span_us` does."""
    return _span_or(NEVER, text, (LONGEST_IDLE_US, "24h"))


def _span_or(word: str, text: str, most: tuple[int, str]) -> int | str:
    if text == word:
        return text
    try:
        return span_us(text, 1, most)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}; or {word}") from None


def _run(text: str) -> tuple[str | None, int]:
    job_id, _, lasts = text.rpartition("=")
    return job_id if "=" in text else None, span_us(lasts, 1, (LONGEST_RUN_US, "5h"))


_OF_WIRE = frozenset(fault.name for fault in faults.WIRE_FAULTS)
_NAMES = tuple(fault.name for fault in (*faults.FAULTS, *faults.WIRE_FAULTS))


def _name(text: str) -> str:
    if text not in _NAMES:
        raise argparse.ArgumentTypeError(f"there is no fault {expected(text, _NAMES)}")
    return text


def _names(text: str) -> list[str]:
    return [_name(each) for each in text.split(",")]


def _likelihood(text: str) -> tuple[str, float]:
    name, is_told, chance = text.partition("=")
    if not is_told:
        raise argparse.ArgumentTypeError(f"expected FAULT=CHANCE, such as network.reply=1%, got {text!r}")
    _name(name)
    likelihood = -1.0
    if _CHANCE.fullmatch(chance):
        likelihood = float(chance.removesuffix("%")) / (100 if chance.endswith("%") else 1)
    if not 0 <= likelihood <= 1:
        raise argparse.ArgumentTypeError(
            f"expected a chance from 0% to 100%, such as 1% or 0.01, got {chance!r}"
        )
    return name, likelihood


def clock_us(text: str) -> int:
    """Return how far a clock is ahead that *text* is off by, microseconds.

    Raises:
        argparse.ArgumentTypeError: it is no such time.
    """
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    try:
        return sign * span_us(rest, 0, (FARTHEST_CLOCK_US, "24h"))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"expected a time such as +40s or -1m30s, 24h at most, got {text!r}"
        ) from None


def _outage(text: str) -> Outage:
    who, is_told, when = text.partition("=")
    if not is_told:
        raise argparse.ArgumentTypeError(f"expected WHO=WHEN, {_EXAMPLES}, got {text!r}")
    if who not in list(Party):
        raise argparse.ArgumentTypeError(f"nobody is called {expected(who, Party)}")
    return Outage(party=Party(who), when=_interval(when) if "/" in when else _hours(when))


def _hours(text: str) -> Daily:
    found = _HOURS.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected hours or an interval, {_EXAMPLES}, got {text!r}")
    from_us, until_us = _time_us(found["from"]), _time_us(found["until"])
    lasts_us = DAY_US if until_us - from_us == DAY_US else (until_us - from_us) % DAY_US
    if from_us == DAY_US or not lasts_us:
        raise argparse.ArgumentTypeError(
            f"expected two different times of a day, the first before 24:00, got {text!r}"
        )
    offset = found["offset"] or "Z"
    ahead_us = 0
    if offset != "Z":
        hours, minutes = int(offset[1:3]), int(offset[4:])
        if hours > 23 or minutes > 59:
            raise argparse.ArgumentTypeError(f"expected an offset such as +02:00, got {offset!r}")
        ahead_us = (hours * HOUR_US + minutes * MINUTE_US) * (-1 if offset[0] == "-" else 1)
    zone = " UTC" if offset == "Z" else f" {offset}"
    words = f"{found['from']}-{found['until']}{zone} every day"
    return Daily(from_us=from_us - ahead_us, lasts_us=lasts_us, text=words)


def _time_us(text: str) -> int:
    hours, minutes, *rest = map(int, text.split(":"))
    seconds = rest[0] if rest else 0
    us = hours * HOUR_US + minutes * MINUTE_US + seconds * SECOND_US
    if minutes > 59 or seconds > 59 or us > DAY_US:
        raise argparse.ArgumentTypeError(f"expected a time of a day, 00:00 to 24:00, got {text!r}")
    return us


def _interval(text: str) -> Once:
    begin, _, end = text.partition("/")
    try:
        from_us, until_us = parse_instant(begin), parse_instant(end)
    except ScheduleError as error:
        raise argparse.ArgumentTypeError(
            f"{error}; expected an interval of two instants, {_EXAMPLES}"
        ) from None
    if until_us <= from_us:
        raise argparse.ArgumentTypeError(f"expected an end after the beginning, got {text!r}")
    return Once(from_us=from_us, until_us=until_us, text=f"{begin} to {end}")
