"""The commands of `python -m chronos`, their options and what they print."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from chronos import clock
from chronos.agent.preview import MAX_PREVIEW
from chronos.agent.status import why_no_wake
from chronos.cli.console import BAD_INPUT, COMMON_STATUSES, OK, complain, facts, keep_apart, tell
from chronos.cli.options import STANDARD_INPUT, Helped, Parser, Version, as_json, section, whole, zone
from chronos.cli.survey import Survey, described, is_overdue, past, survey, upcoming
from chronos.jobs.due import wake_at
from chronos.jobs.instants import Instant
from chronos.jobs.job import Job, Outcome, Run, Unreadable, Waiting
from chronos.jobs.schedule import Cron, remarks
from chronos.jobs.zones import zone_of
from chronos.stores import refusal
from chronos.stores.reader import written_in

STATUSES = {OK: "every record is good", **COMMON_STATUSES}

_FROM_THE_STORE = "from the store alone; NAS was not asked"

_EXAMPLES = """\
examples:
  python -m chronos validate jobs.json
  python -m chronos next jobs.json --count 3 --tz Europe/Berlin
  python -m chronos status sqlite:///jobs.sqlite --json
  python -m chronos next - < jobs.json"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status, one of `STATUSES`.

    What goes wrong as a whole is raised, for `chronos.cli.console.ended`.
    """
    try:
        options = _parser().parse_args(arguments)
    except Helped as helped:
        tell(helped.lines)
        return OK
    if options.file == STANDARD_INPUT:
        keep_apart("the standard input", facts(sys.stdin))
    else:
        keep_apart(options.file, facts(options.file))
    found = survey(options.file)
    if options.json:
        tell(as_json(options.values(found, options)).split("\n"))
    else:
        tell(options.lines(found, options))
    for record in found.odd:
        complain("chronos", f"error: {refusal(record)}")
    return BAD_INPUT if found.odd else OK


def _parser() -> Parser:
    """Return the parser of all commands."""
    whole_parser = Parser(
        prog="python -m chronos",
        description="Tell of the jobs in a store, from the store alone: it is read once, and never written.",
        epilog=f"{_EXAMPLES}\n\n{section('exit statuses', STATUSES)}",
    )
    whole_parser.add_argument("--version", action=Version)
    commands = whole_parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    _add(commands, "validate", "say whether every record can be read, and what is not as it seems")
    following = _add(commands, "next", "say when each job is due next")
    following.add_argument(
        "--count", type=whole(1, MAX_PREVIEW), default=5, metavar="N", help="how many times (default: 5)"
    )
    standing = _add(commands, "status", f"say how each job stands, {_FROM_THE_STORE}")
    for each in (following, standing):
        each.add_argument(
            "--tz",
            type=zone,
            metavar="ZONE",
            help="the zone to show (default: each job's own, or UTC)",
        )
    return whole_parser


def _add(commands: argparse._SubParsersAction[Parser], name: str, about: str) -> Parser:
    command = commands.add_parser(name, help=about, epilog=_EXAMPLES)
    command.add_argument(
        "file",
        metavar="FILE",
        help="a jobs file, - for the standard input, a SQLite file or a URL",
    )
    command.add_argument("--json", action="store_true", help="print JSON instead")
    command.set_defaults(values=_COMMANDS[name][0], lines=_COMMANDS[name][1])
    return command


# --- validate -------------------------------------------------------------------------------


def _validated(found: Survey, _options: argparse.Namespace) -> dict[str, Any]:
    return {
        "source": found.source,
        "is_good": not found.odd,
        "jobs": len(found.jobs),
        "problems": _problems(found),
        "remarks": [
            {"job_id": job.id, "remark": remark} for job in found.jobs for remark in remarks(job.schedule)
        ],
    }


def _validate(found: Survey, _options: argparse.Namespace) -> Iterator[str]:
    jobs = "1 job" if len(found.jobs) == 1 else f"{len(found.jobs):,} jobs"
    odd = "all good" if not found.odd else f"{len(found.odd):,} {_plural(found.odd)}"
    yield f"{found.source}: {jobs}, {odd}"
    for job in found.jobs:
        for remark in remarks(job.schedule):
            yield f"remark: job {job.id}: {remark}"


def _plural(odd: Sequence[Unreadable]) -> str:
    return "record cannot be read" if len(odd) == 1 else "records cannot be read"


def _problems(found: Survey) -> list[dict[str, Any]]:
    return [{"record": each.place, "field": each.field, "problem": each.problem} for each in found.odd]


# --- next -----------------------------------------------------------------------------------


def _next_values(found: Survey, options: argparse.Namespace) -> dict[str, Any]:
    now_us = clock.now_us()
    return {
        "source": found.source,
        "jobs": [
            {
                "job_id": job.id,
                "state": job.state,
                "schedule": described(job.schedule),
                "past": _shown(past(job, now_us), job, options),
                "next": [_shown(at_us, job, options) for at_us in upcoming(job, options.count, now_us)],
            }
            for job in found.jobs
        ],
        "problems": _problems(found),
    }


def _next(found: Survey, options: argparse.Namespace) -> Iterator[str]:
    now_us = clock.now_us()
    for job in found.jobs:
        yield f"{job.id}: {described(job.schedule)}"
        if (past_us := past(job, now_us)) is not None:
            yield f"  {_shown(past_us, job, options)}  (is past, and was not taken yet)"
        times = upcoming(job, options.count, now_us)
        for at_us in times:
            yield f"  {_shown(at_us, job, options)}"
        if not times:
            yield f"  {'nothing else is left of its schedule' if wake_at(job) else why_no_wake(job, now_us)}"


# --- status ---------------------------------------------------------------------------------


def _status_values(found: Survey, options: argparse.Namespace) -> dict[str, Any]:
    now_us = clock.now_us()
    return {
        "source": found.source,
        "note": _FROM_THE_STORE,
        "jobs": [
            {
                "job_id": job.id,
                "state": job.state,
                "stands": _stands(job, now_us, options),
                "wake": _shown(wake_at(job), job, options),
                "is_overdue": is_overdue(job, now_us),
                "runs": [_run(each, job, options) for each in job.runs],
                "waiting": [_waiting(each, job, options) for each in job.waiting],
                "last": _last(found.last.get(job.id), job, options),
            }
            for job in found.jobs
        ],
        "problems": _problems(found),
    }


def _status(found: Survey, options: argparse.Namespace) -> Iterator[str]:
    now_us = clock.now_us()
    yield f"{found.source}: {_FROM_THE_STORE}"
    for job in found.jobs:
        yield f"{job.id}: {_stands(job, now_us, options)}"
        for run in job.runs:
            since, until = (_shown(each, job, options) for each in (run.claimed_us, run.lease_until_us))
            yield f"  in flight since {since}, attempt {run.attempt}, its lease lasts until {until}"
        for waiting in job.waiting:
            before = _shown(waiting.not_before_us, job, options)
            yield f"  waits: {_shown(waiting.occurrence_us, job, options)}, not before {before}"
        if (last := found.last.get(job.id)) is not None:
            yield f"  last: {_shown(last.occurrence_us, job, options)} {last.result}: {last.reason}"


def _stands(job: Job, now_us: Instant, options: argparse.Namespace) -> str:
    wake_us = wake_at(job)
    if wake_us is None:
        return why_no_wake(job, now_us)
    how = "overdue since" if is_overdue(job, now_us) else "must be woken at"
    return f"{how} {_shown(wake_us, job, options)}"


def _run(run: Run, job: Job, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "occurrence": _shown(run.occurrence_us, job, options),
        "attempt": run.attempt,
        "origin": run.origin,
        "owner": run.owner,
        "claimed": _shown(run.claimed_us, job, options),
        "lease_until": _shown(run.lease_until_us, job, options),
    }


def _waiting(waiting: Waiting, job: Job, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "occurrence": _shown(waiting.occurrence_us, job, options),
        "attempt": waiting.attempt,
        "origin": waiting.origin,
        "not_before": _shown(waiting.not_before_us, job, options),
    }


def _last(outcome: Outcome | None, job: Job, options: argparse.Namespace) -> dict[str, Any] | None:
    if outcome is None:
        return None
    return {
        "occurrence": _shown(outcome.occurrence_us, job, options),
        "result": outcome.result,
        "reason": outcome.reason,
        "count": outcome.count,
        "at": _shown(outcome.at_us, job, options),
    }


def _shown(at_us: Instant | None, job: Job, options: argparse.Namespace) -> str | None:
    """Return an instant in the zone that was asked for, or else in the job's own."""
    if at_us is None:
        return None
    own = job.schedule.tz if isinstance(job.schedule, Cron) else "UTC"
    return written_in(at_us, zone_of(options.tz or own))


_Values = Callable[[Survey, argparse.Namespace], dict[str, Any]]
_Lines = Callable[[Survey, argparse.Namespace], Iterator[str]]
_COMMANDS: dict[str, tuple[_Values, _Lines]] = {
    "validate": (_validated, _validate),
    "next": (_next_values, _next),
    "status": (_status_values, _status),
}
