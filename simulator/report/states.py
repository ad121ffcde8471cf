"""A state of a small world in words, a line for each of its parts."""

from __future__ import annotations

from collections.abc import Iterator

from chronos.jobs.job import Job, Run
from chronos.protocol import words
from simulator.report.words import counted
from simulator.search.space import Space
from simulator.search.state import NOBODY, Message, Proc, State, time_of


def state_lines(space: Space, state: State) -> Iterator[str]:
    """Yield the lines that tell of *state*, its parts one after the other, and what may still go wrong."""
    case = space.case
    then_us = case.next_us(state.clock)
    later = "no later one" if then_us is None else f"the next one is {time_of(then_us)}"
    yield f"time       {time_of(case.now_us(state.clock))}; {later}"
    people = ", ".join(_people(space, state))
    if people:
        yield f"people     {people}"
    yield f"store      {_job(state.job)}"
    for number, proc in enumerate(state.procs):
        yield f"process {number}  {_process(proc)}"
    yield f"NAS        {_nas(space, state)}"
    calls = ", ".join(time_of(shot.fire_at_us) for shot in state.held)
    yield f"external   {f'will call for {calls}' if calls else 'has nothing to call for'}"
    under_way = ", ".join(_message(message) for message in state.messages)
    yield f"under way  {under_way or 'nothing'}"
    left = ((state.crashes, "crash"), (state.duplicates, "duplicate"), (state.losses, "loss"))
    yield f"left       {', '.join(counted(*each) if each[0] else f'no {each[1]}' for each in left)}"


def _people(space: Space, state: State) -> Iterator[str]:
    if state.change in (1, 2):
        asked = type(space.case.change).__name__.lower()
        yield f"{asked}: {'to be asked for again' if state.change == 1 else 'not answered yet'}"
    if state.stop in (1, 2):
        yield "the agent is told to run no jobs" if state.stop == 1 else "the agent has to be started again"
    if state.login in (1, 2):
        yield "the agent has to be logged in" if state.login == 1 else "the agent has to be started again"


def _job(job: Job | None) -> str:
    if job is None:
        return "the job is removed"
    told = [str(job.state), "none is ahead" if job.next_us is None else f"next {time_of(job.next_us)}"]
    told += [_run(run) for run in job.runs]
    told += [f"{time_of(each.occurrence_us)} waits" for each in job.waiting]
    return f"{', '.join(told)} (revision {job.revision})"


def _run(run: Run) -> str:
    process = run.owner.partition("/")[0]
    again = f", attempt {run.attempt}" if run.attempt > 1 else ""
    at, until = time_of(run.occurrence_us), time_of(run.lease_until_us)
    return f"{at} claimed by process {process}{again} until {until}"


def _process(proc: Proc) -> str:
    process = proc.process
    if process is None:
        return "down"
    told = ["draining"] if process.is_draining else []
    told += [f"runs {time_of(process.runs[key].started.run.occurrence_us)}" for key in proc.runs]
    told += [
        f"waits for NAS ({'start' if task.intent is None else words.name_of(task.intent)})"
        for task in process.tasks.values()
    ]
    told += [f"will try again ({words.name_of(owed.intent)})" for owed in process.owed.values()]
    return f"up: {', '.join(told) or 'idle'}"


def _nas(space: Space, state: State) -> str:
    shot = state.row.shot
    told = ["nothing is armed" if shot is None else f"armed for {time_of(shot.fire_at_us)}"]
    if shot is not None and space.armed_us(state) is None:
        told.append("which nobody will call for")
    told += [f"waits for the answer to the fire of {time_of(each.fire_at_us)}" for _, each in state.relays]
    if state.login == 1:
        told.append("refuses the agent's identity")
    return ", ".join(told)


def _message(message: Message) -> str:
    is_from = message.process != NOBODY and message.kind in ("provision", "cancel", "list", "answer")
    return f"{message} from process {message.process}" if is_from else str(message)
