"""Many flows of which a few are performed at once: those of a start, those of a declaration."""

from __future__ import annotations

from itertools import count

from chronos.jobs.job import Verdict
from chronos.protocol import state, words
from chronos.protocol.flow_effects import Answer, Begin
from chronos.protocol.intents import Intent
from chronos.protocol.maps import Map
from chronos.protocol.process_effects import Log, Reply
from chronos.protocol.retries import Retries
from chronos.protocol.state import Batch, ForBatch, ForCaller, ForTicker, Started, Task
from chronos.protocol.ticking import Ticking
from chronos.values import evolve


class Batches(Ticking, Retries):
    """The part of a turn that sees to the batches."""

    def reconciled(self, task: Task, found: Begin) -> None:
        """It is known what differs; see to it."""
        if found.settled:
            if self.ticker.is_ticking:
                self.ticker = evolve(self.ticker, looked_us=self.present.steady_us)
            # All others were seen to agree; another process may have settled them.
            disagree = task.converging.union(intent.job_id for intent in found.intents)
            self.unsettled = Map(
                (job_id, why) for job_id, why in self.unsettled.items() if job_id in disagree
            )
            self._own.add("unsettled")
            self.owe_no_more(lambda job_id: job_id not in disagree)
        else:
            self.own("unsettled")[""] = words.because(words.UNKNOWN, found.trouble)
        self.begin_batch(
            Batch(
                purpose=task.purpose,
                intents=found.intents,
                awaits=frozenset(
                    number
                    for number, other in self.tasks.items()
                    if other.intent is not None and other.intent.job_id in task.converging
                ),
                is_known=found.settled,
                is_unheard=task.is_unheard,
                trouble=found.trouble,
                retry_after_us=task.retry_after_us,
            )
        )

    def begin_batch(self, batch: Batch) -> None:
        """Begin many flows, or none."""
        if not (batch.intents or batch.awaits):
            self.batch_ended(batch)
            return
        number = next(each for each in count() if each not in self.batches)
        self.own("batches")[number] = batch
        self.advance(number)

    def advance(self, number: int) -> None:
        """Begin as many flows of a batch as may be performed at once, and end it with the last."""
        self._advancing.add(number)
        most = state.CONCURRENCY
        while (batch := self.batches[number]).at_work < most and batch.begun < len(batch.intents):
            begun = evolve(batch, begun=batch.begun + 1, at_work=batch.at_work + 1)
            self.own("batches")[number] = begun
            self.begin(batch.intents[batch.begun], ForBatch(number))
        self._advancing.discard(number)
        if not (batch.at_work or batch.awaits):
            self.own("batches").pop(number)
            self.batch_ended(batch)

    def ended_elsewhere(self, task: int, *, is_settled: bool) -> None:
        """A task is over, for which a start may wait that has left a job to it."""
        for number, batch in tuple(self.batches.items()):
            if task in batch.awaits:
                self.own("batches")[number] = evolve(
                    batch, awaits=batch.awaits - {task}, is_settled=batch.is_settled and is_settled
                )
                if number not in self._advancing:
                    self.advance(number)

    def ended_of_batch(self, number: int, intent: Intent | None, answer: Answer | None) -> None:
        """One of many flows is over; one that ended with a bug has no answer."""
        batch = self.batches[number]
        is_settled = answer is not None and answer.settled and answer.verdict is not Verdict.STOPPED
        answers = batch.answers
        if batch.is_declared and intent is not None and answer is not None:
            answers = answers.plus(intent.job_id, words.explained(intent, answer))
        self.own("batches")[number] = evolve(
            batch, at_work=batch.at_work - 1, is_settled=batch.is_settled and is_settled, answers=answers
        )
        if number not in self._advancing:
            self.advance(number)

    def batch_ended(self, batch: Batch) -> None:
        """All are over: answer the caller, or go on with the purpose of the batch."""
        if batch.is_declared:
            assert isinstance(batch.purpose, ForCaller)
            self.effects.append(Reply(batch.purpose.ticket, batch.answers))
            return
        is_settled = batch.is_known and batch.is_settled and not self.unreadable
        started = Started(flows=len(batch.intents), settled=is_settled, trouble=batch.trouble)
        if batch.is_known:
            self.effects.append(Log("info", "reconciled", extra=started))
        else:
            why = words.because(words.UNKNOWN, batch.trouble)
            self.effects.append(Log("warning", f"not reconciled: {why}", extra=started))
        match batch.purpose:
            case ForCaller(ticket):
                if batch.is_unheard or not batch.is_known:
                    self.lists = self._again(batch.retry_after_us)
                if self.ticker.is_ticking:
                    self.begin_ticking()
                self.effects.append(Reply(ticket, started))
            case ForTicker():
                self.nudge_ticker()
            case _:
                is_known = batch.is_known and not batch.is_unheard
                self.asked_again(batch.purpose, is_known=is_known, retry_after_us=batch.retry_after_us)
