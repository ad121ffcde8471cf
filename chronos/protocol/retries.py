"""The retries of a process: of unfinished flows, of the list of arms, and of the time."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from chronos.protocol import follow_ups, state, words
from chronos.protocol.clocks import Belief
from chronos.protocol.flow_effects import Answer
from chronos.protocol.intents import Finish, Fire, Intent, key_of
from chronos.protocol.state import MOST_TRIES, ForClock, ForOwed, Owed, Purpose, Retry, Task
from chronos.protocol.turn import Turn, try_after_us
from chronos.values import evolve


class Retries(Turn):
    """The part of a turn that sees to the retries."""

    def owe(self, owed: Owed, answer: Answer) -> None:
        """Note unfinished work, in place of older work that it makes needless."""
        delay_us = max(try_after_us(owed.tries), answer.retry_after_us)
        if self.is_draining:
            delay_us = min(delay_us, state.DRAINING_DELAY_US)
        reason = f"{words.why_unsettled(answer)}; it is tried again"
        self.own("owed")[key_of(owed.intent)] = evolve(
            owed, due_us=self.present.steady_us + delay_us, reason=reason
        )

    def owe_no_more(self, is_settled: Callable[[str], bool]) -> None:
        """Forget the work that would only make NAS agree on jobs on which it agrees already."""
        for key, owed in tuple(self.owed.items()):
            if isinstance(owed.intent, Fire) and is_settled(owed.intent.job_id):
                self.own("owed").pop(key)

    def try_owed(self) -> None:
        """Begin the retries that are due, a few at once; the end of a run first, since its lease runs out."""
        due = [(key, owed) for key, owed in self.owed.items() if owed.due_us <= self.present.steady_us]
        due.sort(key=lambda each: (not isinstance(each[1].intent, Finish), each[1].due_us))
        for key, owed in due[: max(0, state.CONCURRENCY - tries_at_work(self.tasks))]:
            self.own("owed").pop(key)
            self.begin(owed.intent, ForOwed(owed))

    def tried(self, owed: Owed, answer: Answer) -> None:
        """A retry has ended; see whether its work is still owed."""
        still = follow_ups.follow_up(owed.intent, answer, self.clock())
        if still is None or self._is_needless(still):
            return
        # A refused request with `Retry-After` does not count as a try, as long as the patience lasts.
        is_put_off = answer.retry_after_us > 0 and self.present.steady_us < owed.patience_until_us
        left = evolve(owed, intent=still, tries=min(owed.tries + (not is_put_off), MOST_TRIES))
        if left.tries == len(follow_ups.FOLLOW_UP_DELAYS_US) and not is_put_off:
            self.log("error", f"{still.job_id}: {words.TRIED_SLOWLY}", still.job_id)
        if not (self.is_draining and (is_put_off or not left.is_busy)):
            self.owe(left, answer)

    def _is_needless(self, intent: Intent) -> bool:
        key = key_of(intent)
        tried = (task.purpose.owed for task in self.tasks.values() if isinstance(task.purpose, ForOwed))
        return key in self.owed or any(key_of(owed.intent) == key for owed in tried)

    def _again(self, retry_after_us: int) -> Retry:
        """Return the wait for the first of many lists; one that is on its way counts as none."""
        if self.lists is not None and self.lists.due_us is None:
            return Retry(tries=-1, due_us=None)
        return self.later(0, retry_after_us)

    def asked_again(self, purpose: Purpose, *, is_known: bool, retry_after_us: int) -> None:
        """The list, or the time, was asked for again: ask once more, later, unless it is known now."""
        if isinstance(purpose, ForClock):
            if self.looks is not None:
                self.looks = self.later(self.looks.tries) if self.belief() is Belief.DOUBTED else None
            return
        if self.lists is None or is_known:
            self.lists = None
            return
        tries = min(self.lists.tries + 1, MOST_TRIES)
        if tries == len(follow_ups.FOLLOW_UP_DELAYS_US):
            self.log("error", f"{self.unsettled.get('', words.UNKNOWN)}: {words.TRIED_SLOWLY}")
        self.lists = self.later(tries, retry_after_us)
        if self.is_draining:
            soon_us = self.present.steady_us + state.DRAINING_DELAY_US
            self.lists = evolve(self.lists, due_us=soon_us) if self.lists.is_busy else None


def tries_at_work(tasks: Mapping[int, Task]) -> int:
    """Return how many retries of unfinished work are going on."""
    return sum(isinstance(task.purpose, ForOwed) for task in tasks.values())
