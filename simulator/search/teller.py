"""Gathers what happens in one history of a small world, as the lines of a trace.

A small world has events and no clock that goes: a line stands at a step, and the lines of a step one after
the other within it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import groupby
from typing import Any

from chronos.jobs.job import Job, Outcome
from chronos.testing.nas import OneShot
from simulator.search.cases import JOB_ID, Case
from simulator.search.explore import Counterexample
from simulator.search.state import NOBODY, Message, State, time_of
from simulator.trace import MESSAGE, STEP_US, VIOLATION, Lane, Line

# How much of a step its lines take; the rest sets it apart from the next one.
_FILLED = 0.85
# How long a message takes that arrives within its step, as a part of what its line takes.
_AT_ONCE = 0.9

# Of each kind of message, where it goes from and to.
_WAYS = {
    **dict.fromkeys(("provision", "cancel", "list", "answer"), (Lane.AGENT, Lane.NAS)),
    **dict.fromkeys(("fire", "outdated", "arms", "refused"), (Lane.NAS, Lane.AGENT)),
}
_REPLIES = ("outdated", "arms", "refused")
_ON_ITS_WAY = ", still on its way"


class _Noted:
    """A line that is not whole yet: a message has not arrived.

    Attributes:
        step: at which.
        fields: of the line.
        arrives: of a message, at which step it arrives; None when it does not.
        is_at_once: whether it arrives before the next line.
        is_beside: whether it stands where the line before it stands.
    """

    def __init__(self, step: int, fields: dict[str, Any], *, is_at_once: bool, is_beside: bool) -> None:
        self.step, self.fields, self.is_at_once, self.is_beside = step, fields, is_at_once, is_beside
        self.arrives: int | None = None


class Teller:
    """Takes down a history.

    Args:
        case: the bounded world.

    Attributes:
        line: the number of the line that leads to the next one; 0 for none.
    """

    def __init__(self, case: Case) -> None:
        self.line = 0
        self._case = case
        self._step = self._count = 0
        self._noted: list[_Noted] = []
        self._under_way: list[tuple[Message, int]] = []
        self._never: list[int] = []
        self._latest: dict[int, int] = {}
        self._runs: dict[tuple[int, Hashable], tuple[int, int]] = {}
        self._shots: dict[OneShot, int] = {}

    # --- steps ---

    def begin(self, state: State) -> None:
        """Tell of the state in which the history begins."""
        for number, proc in enumerate(state.procs):
            if proc.process is not None:
                self.line = 0
                text, beside = f"process {number} is up", number > 0
                self.note("booted", Lane.AGENT, text, is_beside=beside, process=number, value=number)
        self.line = 0
        for shot in state.held:
            text = f"the job is armed for {time_of(shot.fire_at_us)}"
            self._shots[shot] = self.note("created", Lane.NAS, text, job_id=JOB_ID, is_beside=True)

    def begin_step(self) -> None:
        """Another event happens."""
        self._step += 1
        self.line = 0

    def end_step(self, label: str, state: State | None) -> None:
        """All that the event does is told; *state* is that afterwards, None when there is none."""
        if self._noted[-1].step != self._step:
            self._note_plain(label, state)
        if state is not None:
            self._compare(state.messages)

    def _note_plain(self, label: str, state: State | None) -> None:
        """Tell of an event that only its name tells of."""
        lane, kind, text = Lane.PEOPLE, "asked", label
        if label.startswith("time") and state is not None:
            lane, kind = Lane.EXTERNAL, "time"
            text = f"it is {time_of(self._case.now_us(state.clock))}"
        elif label.startswith("NAS"):
            lane, kind = Lane.NAS, "refuses"
        self.note(kind, lane, text)

    # --- lines ---

    def note(
        self,
        kind: str,
        lane: Lane,
        text: str,
        *,
        leads: bool = True,
        is_lost: bool = False,
        is_beside: bool = False,
        **fields: Any,
    ) -> int:
        """Something happens because of the latest line; return the number of its own.

        Args:
            kind: what, as a word.
            lane: where.
            text: the same in words.
            leads: whether the next line is because of this one.
            is_lost: whether it is a message that does not arrive.
            is_beside: whether it happens together with the line before it.
            fields: more of the line.
        """
        told = {"because": self.line, "kind": kind, "lane": lane, "text": text, "job_id": None, **fields}
        is_at_once = "to" in fields and not is_lost
        self._noted.append(_Noted(self._step, told, is_at_once=is_at_once, is_beside=is_beside))
        number = len(self._noted)
        if leads:
            self.line = number
        if fields.get("process") is not None:
            self._latest[fields["process"]] = number
        return number

    def asked(self, process: int, text: str, word: str) -> None:
        """Somebody asks a process for something."""
        self.note("changed", Lane.PEOPLE, text)
        self.note(MESSAGE, Lane.PEOPLE, word, to=Lane.AGENT, process=process)

    def goes_on(self, process: int) -> None:
        """A process goes on from what happened to it last."""
        self.line = self._latest.get(process, 0)

    def started(self, process: int, key: Hashable, text: str) -> None:
        """A run starts."""
        self._count += 1
        value = self._count
        number = self.note("started", Lane.AGENT, text, process=process, job_id=JOB_ID, value=value)
        self._runs[process, key] = (number, value)

    def ended(self, process: int, key: Hashable, text: str, *, by_itself: bool = True) -> None:
        """A run ends, by itself or with its process."""
        number, value = self._runs[process, key]
        if by_itself:
            self.line = number
        fields: dict[str, Any] = {"process": process, "job_id": JOB_ID, "value": value}
        self.note("ended", Lane.AGENT, text, is_beside=not by_itself, **fields)

    def armed(self, shot: OneShot) -> None:
        """NAS has created a one-shot."""
        text = f"NAS creates the one-shot for {time_of(shot.fire_at_us)}"
        self._shots[shot] = self.note("created", Lane.NAS, text, job_id=JOB_ID)

    def called(self, shot: OneShot) -> None:
        """The external scheduler calls NAS for a one-shot."""
        self.line = self._shots.get(shot, 0)
        at = time_of(shot.fire_at_us)
        self.note("relayed", Lane.EXTERNAL, f"the external scheduler calls for {at}", job_id=JOB_ID)
        self.note(MESSAGE, Lane.EXTERNAL, f"the call for {at}", to=Lane.NAS)

    def stored(self, old: Job | None, new: Job | None, outcomes: Sequence[Outcome]) -> None:
        """The store moves the job."""
        for kind, text, count in _moves(old, new, outcomes):
            self.note(kind, Lane.STORE, text, job_id=JOB_ID, count=count)

    def violated(self, found: Counterexample) -> None:
        """A property is violated."""
        self.note(VIOLATION, Lane.STORE, f"{found.property}: {short(found.reason)}")

    # --- messages ---

    def sent(self, message: Message, words: str = "") -> None:
        """A message is on its way."""
        lane, to = _WAYS[message.kind]
        process = None if message.process == NOBODY else message.process
        text = f"{message}{words}"
        number = self.note(MESSAGE, lane, text, leads=False, is_lost=True, to=to, process=process)
        self._under_way.append((message, number))

    def arrived(self, message: Message, process: int | None = None) -> None:
        """A message arrives; a fire, at *process*."""
        self.line = number = self._take(message)
        noted = self._noted[number - 1]
        noted.arrives, noted.is_at_once = self._step, noted.step == self._step
        if process is not None:
            noted.fields["process"] = process

    def lost(self, message: Message) -> None:
        """A message is lost on its way."""
        self.line = number = self._take(message)
        fields = self._noted[number - 1].fields
        fields["text"] += ", lost on its way"
        self.note("lost", fields["lane"], f"{message} is lost", process=fields["process"])

    def unsent(self, message: Message) -> None:
        """A process has crashed before it sent a message."""
        self._noted[self._take(message) - 1].fields["text"] += ", not sent any more"

    def _take(self, message: Message) -> int:
        found = _nearest(message, self._under_way)
        assert found is not None
        self._under_way.remove(found)
        return found[1]

    def _compare(self, messages: Sequence[Message]) -> None:
        """Find the messages of a state again: some have lost their names, some are gone, some are new."""
        known, self._under_way = self._under_way, []
        new = []
        for message in messages:
            found = next((each for each in known if each[0] == message), None)
            if found is None:
                new.append(message)
            else:
                known.remove(found)
                self._under_way.append(found)
        for message in new:
            found = _nearest(message, known)
            if found is not None:
                known.remove(found)
                self._under_way.append((message, found[1]))
            elif message.kind in _REPLIES:
                self.sent(message)
            else:
                self._copied(message)
        self._never += [number for _, number in known]

    def _copied(self, message: Message) -> None:
        """A copy of a message is on its way, which will arrive too."""
        lane = _WAYS[message.kind][0]
        alike = [
            number
            for number, noted in enumerate(self._noted, start=1)
            if noted.fields["kind"] == MESSAGE
            and noted.fields["lane"] is lane
            and noted.fields["text"].startswith(str(message))
        ]
        self.line = alike[-1] if alike else 0
        self.sent(message, ", again")

    # --- the whole ---

    def lines(self) -> tuple[Line, ...]:
        """Return the lines: the steps are as long as each other, and their lines are spread in them."""
        for number in [*self._never, *(number for _, number in self._under_way)]:
            noted = self._noted[number - 1]
            noted.arrives = self._step + 1
            noted.fields["text"] += _ON_ITS_WAY
        lines: list[Line] = []
        for step, group in groupby(self._noted, key=lambda noted: noted.step):
            whole = list(group)
            apart_us = round(STEP_US * _FILLED / (1 + sum(not noted.is_beside for noted in whole[1:])))
            at_us = step * STEP_US
            for place, noted in enumerate(whole):
                at_us += apart_us if place and not noted.is_beside else 0
                arrives_us = None if noted.arrives is None else noted.arrives * STEP_US
                if noted.is_at_once:
                    arrives_us = at_us + round(apart_us * _AT_ONCE)
                number = len(lines) + 1
                line = Line(number=number, at_us=at_us, arrives_us=arrives_us, step=step, **noted.fields)
                lines.append(line)
        return tuple(lines)


def short(reason: str) -> str:
    """Return *reason* with times of day in the place of instants: a small world lasts no day."""
    return reason.replace("1970-01-01T", "").replace("+00:00", "")


def _nearest(message: Message, among: Sequence[tuple[Message, int]]) -> tuple[Message, int] | None:
    """Return which of *among* is *message*, whose sender or waiter may have been forgotten meanwhile."""
    looks = (message.kind, message.instant_us, message.number)
    alike = [each for each in among if (each[0].kind, each[0].instant_us, each[0].number) == looks]
    alike.sort(key=lambda each: (each[0] != message, each[0].relay != message.relay))
    return alike[0] if alike else None


def _moves(old: Job | None, new: Job | None, outcomes: Sequence[Outcome]) -> list[tuple[str, str, int]]:
    """Return what the store's move of a job does: kind, words, and of how many occurrences it is."""
    told: list[tuple[str, str, int]] = []
    for outcome in outcomes:
        at = time_of(outcome.occurrence_us)
        reason = f": {short(outcome.reason)}" if outcome.reason else ""
        told.append((outcome.result, f"{at} {outcome.result}{reason}", outcome.count))
    if new is None:
        return [*told, ("removed", "the job is removed", 1)]
    before = {} if old is None else {(run.identity, run.attempt): run for run in old.runs}
    for run in new.runs:
        at, known = time_of(run.occurrence_us), before.get((run.identity, run.attempt))
        if known is None:
            told.append(("claimed", f"the occurrence {at} is claimed", 1))
        elif known.lease_until_us != run.lease_until_us:
            until = time_of(run.lease_until_us)
            told.append(("renewed", f"the lease of the run of {at} is renewed until {until}", 1))
    if not told:
        ahead = "none is ahead" if new.next_us is None else f"next {time_of(new.next_us)}"
        told.append(("stored", f"the job is stored: {new.state}, {ahead}", 1))
    return told
