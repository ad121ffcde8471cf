"""The options that say what is simulated: whose jobs, when, with which seed, and what is around them."""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from os import stat_result
from pathlib import Path

from chronos.cli.console import BadUsage, facts, is_one_file, keep_apart
from chronos.cli.options import STANDARD_INPUT, Parser, expected, instant, whole
from chronos.jobs.instants import DAY_US
from chronos.testing.nas import BUILDS
from simulator import conditions_options, faults, fleet, policies
from simulator.agents import AGENTS, CHRONOS, agent_of
from simulator.promises import WITHOUT, promises_of
from simulator.scenario import DEFAULT, ENDS_BEFORE_US, MAX_DAYS, OWN_JOBS, Plan, Scenario
from simulator.scenario_file import load, names, shipped
from simulator.scenario_forms import ScenarioError
from simulator.wire import STORES


def add_fleet(run: Parser, *, is_many: bool = False) -> None:
    """Add the options that say whose jobs, when, and with which seed.

    Args:
        run: the parser of the command.
        is_many: whether several scenarios may be named, or all.
    """
    words = "shipped scenarios, files.toml, or all" if is_many else "a shipped scenario, or a file.toml"
    run.add_argument(
        "scenario",
        nargs="*" if is_many else "?",
        metavar="SCENARIO",
        help=f"{words} (default: {DEFAULT}; with --jobs, a year without faults)",
    )
    run.add_argument(
        "--jobs",
        metavar="FILE",
        help="a jobs file instead of the scenario's fleet; - for the standard input; never written",
    )
    add_calendar(run)


def add_calendar(run: Parser) -> None:
    """Add the options that say when, and with which seed."""
    run.add_argument(
        "--start", type=instant, metavar="INSTANT", help="where to start, ISO 8601 with an offset"
    )
    run.add_argument("--days", type=whole(1, MAX_DAYS), metavar="N", help="how long the calendar lasts")
    run.add_argument("--seed", type=whole(0, 2**63 - 1), metavar="N", help="the seed (default: 0)")


def add_world(run: Parser) -> None:
    """Add the options that say what is around the jobs: what goes wrong, which NAS, and so on."""
    run.add_argument("--faults", choices=faults.LEVELS, help="what goes wrong; see below")
    add_nas(run)
    add_agent(run)
    run.add_argument(
        "--policies", choices=policies.SOURCES, help="the jobs' own policies, or others at random"
    )
    run.add_argument("--machines", type=whole(1, 16), metavar="N", help="how many replicas share the store")
    run.add_argument(
        "--wire", action="store_true", help="run all that ships, not a model: HTTP, JSON, tokens and a store"
    )
    run.add_argument("--store", choices=STORES, help="with --wire: which store (default: memory)")
    run.add_argument(
        "--wire-faults", action="store_true", help="with --wire: messages come torn, or with old tokens"
    )
    conditions_options.add_conditions(run)


def add_nas(command: Parser) -> None:
    """Add the option that says which NAS it is."""
    command.add_argument(
        "--nas",
        type=_nas,
        metavar="NAME",
        help=f"which promises NAS keeps: {', '.join(BUILDS)}, or {WITHOUT}PROMISE,...",
    )


def _nas(text: str) -> str:
    try:
        promises_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def add_agent(command: Parser) -> None:
    """Add the option that says which agent is driven."""
    names = ", ".join(AGENTS)
    command.add_argument(
        "--agent",
        type=_agent,
        metavar="NAME",
        help=f"which agent: {names}, or one of your own, package.module:factory",
    )


def _agent(name: str) -> str:
    """Return the name of an agent that there is."""
    if name in AGENTS:
        return name
    if ":" not in name:
        told = expected(name, AGENTS)
        raise argparse.ArgumentTypeError(f"there is no agent {told}, or package.module:factory")
    if find_spec("greenlet") is None:
        raise argparse.ArgumentTypeError("an agent of your own needs the extra `simulator` of chronos-cron")
    from simulator.own.loading import AgentError, load

    try:
        load(name)
    except AgentError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return name


def check_agent(scenario: Scenario, key: str, name: str, wire: str = "") -> None:
    """Make sure that an agent that a scenario names can be simulated; what is its own is imported.

    Args:
        scenario: it.
        key: where it names the agent.
        name: of the agent.
        wire: with which store all that ships is simulated; empty for a model.

    Raises:
        BadUsage: it cannot; the text names the scenario and the key.
    """
    try:
        _agent(name)
    except argparse.ArgumentTypeError as error:
        raise BadUsage(f"{scenario.source}: {key}: {error}") from None
    if wire and name != CHRONOS.name and agent_of(name).verifier is None:
        problem = (
            f"with wire, all that ships is simulated, and {name} changes nothing of it; expected no wire"
        )
        raise BadUsage(f"{scenario.source}: {key}: {problem}")
    if wire == "sqlite" and find_spec("sqlalchemy") is None:
        raise BadUsage(f"{scenario.source}: {key}: wire sqlite needs the extra `sql` of chronos-cron")


def scenario_of(options: argparse.Namespace) -> Scenario:
    """Return the scenario that is asked for.

    Raises:
        BadUsage: there is none of that name.
    """
    name = options.scenario
    if name is None:
        return shipped(DEFAULT) if options.jobs is None else OWN_JOBS
    if name.endswith(".toml"):
        try:
            return load(Path(name))
        except ScenarioError as error:
            raise BadUsage(str(error)) from None
    if name not in names():
        raise BadUsage(f"there is no scenario {expected(name, names())}, or a file.toml")
    return shipped(name)


def input_of(options: argparse.Namespace, scenario: Scenario) -> stat_result | None:
    """Return the facts of the jobs file that is read, which is no output, whatever it is called.

    Raises:
        BadUsage: it is an output after all, or the scenario's own file is.
    """
    written = facts(scenario.source)
    keep_apart(scenario.source, written)
    for option in ("json", "html", "trace"):
        target = getattr(options, option, None)
        if target is not None and is_one_file(written, facts(target)):
            raise BadUsage(f"--{option} {target}: this is the scenario, which is read and never written")
    if options.jobs is None and scenario.own is not None:
        name = str(Path(scenario.source).parent / scenario.own.name)
        given = facts(name)
    elif options.jobs is None:
        name, given = scenario.fleet, facts(fleet.path(scenario.fleet))
    elif options.jobs == STANDARD_INPUT:
        name, given = "the standard input", facts(sys.stdin)
    else:
        name, given = options.jobs, facts(options.jobs)
    keep_apart(name, given)
    return given


def job_of(options: argparse.Namespace, plan: Plan) -> str:
    """Return the job that is asked for.

    Raises:
        BadUsage: the fleet has none of that id.
    """
    job_id: str = options.job
    ids = plan.fleet.job_ids
    if job_id not in ids:
        raise BadUsage(f"--job: {plan.fleet.name} has no job {expected(job_id, ids)}")
    return job_id


def plan_of(options: argparse.Namespace, chosen: Scenario) -> Plan:
    """Return what the options ask for; what they leave open is the scenario's."""
    conditions = conditions_options.conditions(options)
    if options.agent is None:
        check_agent(chosen, "expect[1].agent" if chosen.expects else "agent", chosen.agent)
    if options.seed is None:
        options.seed = chosen.seed
    _check_is_fixed(options, chosen)
    if options.jobs is None and options.start is None and chosen.own is not None:
        loaded = chosen.own
    elif options.jobs is not None:
        path = None if options.jobs == STANDARD_INPUT else Path(options.jobs)
        loaded = fleet.load_file(path, start_us=options.start)
    else:
        start_us = chosen.start_us if options.start is None else options.start
        loaded = fleet.load_shipped(chosen.fleet, start_us=start_us)
    plan = Plan(
        scenario=chosen.name,
        fleet=loaded,
        days=options.days or chosen.days,
        faults=options.faults or chosen.faults,
        nas=options.nas or chosen.nas,
        agent=options.agent or chosen.agent,
        machines=options.machines or chosen.machines,
        policies=options.policies or chosen.policies,
        wire=_store(options, options.agent or chosen.agent),
        has_wire_faults=options.wire_faults,
        conditions=conditions if conditions.words() else chosen.conditions,
        script=chosen.script,
    )
    if plan.setting(options.seed).end_us > ENDS_BEFORE_US:
        raise BadUsage(f"--days {plan.days}: expected an end before the year 9900")
    ends_us = loaded.start_us + plan.days * DAY_US
    conditions_options.check(
        plan.conditions,
        [job.id for job in loaded.jobs],
        loaded.start_us,
        ends_us,
        level=plan.faults,
        of_wire=plan.has_wire_faults,
    )
    return plan


def _check_is_fixed(options: argparse.Namespace, chosen: Scenario) -> None:
    """Make sure that no option moves what stands where the scenario says."""
    if chosen.own is not None and options.start is not None:
        raise BadUsage(f"--start: {chosen.name} has jobs of its own, which stand where it says")
    for option in ("jobs", "start", "days", "machines"):
        if chosen.script and getattr(options, option) is not None:
            raise BadUsage(f"--{option}: {chosen.name} writes down what happens to its jobs, and when")


def _store(options: argparse.Namespace, agent: str) -> str:
    """Return with which store all that ships is to be run; nothing for a model of it."""
    for option in ("store", "wire_faults"):
        if getattr(options, option) and not options.wire:
            raise BadUsage(f"--{option.replace('_', '-')} is for --wire alone")
    if not options.wire:
        return ""
    if agent != CHRONOS.name:
        raise BadUsage(f"--wire runs what ships, and the agent {agent} is a model alone")
    store: str = options.store or STORES[0]
    if store == "sqlite" and find_spec("sqlalchemy") is None:
        raise BadUsage("--store sqlite needs the extra `sql` of chronos-cron")
    return store
