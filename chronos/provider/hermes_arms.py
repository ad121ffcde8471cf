"""How NAS is made to agree with Hermes's jobs, one at a time, and what is done when it does not.

Nothing is remembered of what NAS has: each request follows from the job as it is at that moment. What is
kept is which jobs are owed a request, to come back to them and to tell the host.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic

import attrs

from chronos.agent.runner import words_of
from chronos.errors import InvalidClient, NasUnavailable, StaleRevision
from chronos.jobs.job import Unreadable
from chronos.jobs.schedule import SECOND_US, Instant
from chronos.nas.client import Nas
from chronos.protocol import flow as flows
from chronos.protocol.clocks import CLOCK_MARGIN_US
from chronos.protocol.flow import FOLLOW_UP_DELAYS_US, MAX_CONFLICTS
from chronos.protocol.state import NAS_TIMEOUT_US, Pending
from chronos.protocol.words import REFUSED, TRIED_SLOWLY
from chronos.provider.hermes_host import get_job
from chronos.stores import refusal

logger = logging.getLogger(__name__)


@attrs.define
class _Turn:
    """The lock that keeps the requests for one job in order, and how many have it or wait for it."""

    lock: threading.Lock = attrs.field(factory=threading.Lock)
    users: int = 0


@attrs.define
class _Owed:
    """A piece of work that is owed to a job.

    Attributes:
        reason: why it is owed.
        work: what to do.
        due_s: when to try it next, by the monotonic clock, seconds.
        tries: how often it was tried again.
    """

    reason: str
    work: Callable[[], None]
    due_s: float
    tries: int = 0

    @property
    def is_busy(self) -> bool:
        return self.tries < len(FOLLOW_UP_DELAYS_US)


class Arms:
    """NAS, as the provider for Hermes asks it.

    Args:
        client: returns the client of NAS.
        clock: returns the present instant, epoch microseconds, UTC.
        on_accepted: called whenever NAS has done as it was asked.
        on_refused: called whenever NAS refuses the agent's identity.

    Attributes:
        is_refused: whether it has; then NAS is not asked until `ask_again`.
    """

    def __init__(
        self,
        client: Callable[[], Nas],
        clock: Callable[[], Instant],
        *,
        on_accepted: Callable[[], None],
        on_refused: Callable[[], None],
    ) -> None:
        self.is_refused = False
        self._client = client
        self._clock = clock
        self._on_accepted = on_accepted
        self._on_refused = on_refused
        # It guards what follows, and is never held while anybody is asked.
        self._lock = threading.Lock()
        self._turns: dict[str, _Turn] = {}
        self._owed: dict[str, _Owed] = {}
        self._unreadable: Sequence[Unreadable] = ()
        self._is_retrying = False
        self._is_resting = False
        self._has_more = threading.Event()
        self._has_told = False

    # --- asking ---

    def ask_again(self) -> None:
        """Ask NAS again though it has refused the identity: there may have been a new login."""
        self.is_refused = self._is_resting = False
        self._client().reset()

    def rest(self) -> None:
        """Leave what was tried for about a minute to the next start, fire or change."""
        self._is_resting = True
        self._has_more.set()

    def listed(self) -> dict[str, Instant | None] | None:
        """Return what NAS has armed; None when it refuses the identity.

        Raises:
            NasError: NAS could not say.
        """
        try:
            arms = dict(self._client().list_arms(within_s=NAS_TIMEOUT_US / SECOND_US))
        except InvalidClient:
            self._refuse()
            return None
        self._accept()
        return arms

    def converge(
        self,
        job_id: str,
        *,
        within_s: float = NAS_TIMEOUT_US / SECOND_US,
        spent_us: Instant | None = None,
        is_lost: bool = False,
    ) -> None:
        """Ask NAS for what the job wants now.

        Hermes's jobs have no revision. The instant before the job was read takes its place: of two
        requests, the one that knew more is the newer (incident L9).

        Args:
            job_id: which job; where there is none, its arm is cancelled.
            within_s: how long it may take in all, seconds: the wait for those who ask for the same job
                before, and every request.
            spent_us: as for `HermesJob.wake_us`; None for what is overdue by more than a clock may err.
            is_lost: likewise.

        Raises:
            NasError: NAS did not agree, or there was no time to ask it.
            JobsFileError: the job's record is not what it should be.
            Exception: Hermes could not read its jobs.
        """
        if self.is_refused:
            return
        deadline_s = monotonic() + within_s
        with self._turn(job_id, within_s):
            revision = 0
            for attempt in range(MAX_CONFLICTS):
                now_us = self._clock()
                revision = max(revision, now_us)
                job = get_job(job_id, now_us)
                spent_or_old_us = now_us - CLOCK_MARGIN_US if spent_us is None else spent_us
                wake_us = None
                if job is not None:
                    wake_us = job.wake_us(now_us, spent_us=spent_or_old_us, is_lost=is_lost)
                left_s = deadline_s - monotonic()
                if left_s <= 0:
                    raise NasUnavailable(f"NAS has not agreed within {within_s:g} s", definite=attempt == 0)
                try:
                    self._request(job_id, wake_us, revision, left_s)
                    break
                except StaleRevision as error:
                    if attempt == MAX_CONFLICTS - 1:
                        raise
                    revision = error.revision + 1
                except InvalidClient:
                    self._refuse()
                    return
        self._accept()
        self.settle(job_id)

    @contextmanager
    def _turn(self, job_id: str, within_s: float) -> Iterator[None]:
        """Keep others from asking for the same job; what nobody holds or waits for is not kept."""
        with self._lock:
            turn = self._turns.setdefault(job_id, _Turn())
            turn.users += 1
        try:
            if not turn.lock.acquire(timeout=max(0.0, within_s)):
                problem = f"an earlier request for the job was not answered within {within_s:g} s"
                raise NasUnavailable(problem, definite=True)
            try:
                yield
            finally:
                turn.lock.release()
        finally:
            with self._lock:
                turn.users -= 1
                if turn.users == 0:
                    del self._turns[job_id]

    def _request(self, job_id: str, wake_us: Instant | None, revision: int, within_s: float) -> None:
        if wake_us is None:
            self._client().cancel(job_id, revision=revision, within_s=within_s)
        else:
            self._client().provision(job_id, wake_us, revision=revision, within_s=within_s)

    def try_to_converge(
        self,
        job_id: str,
        *,
        within_s: float = NAS_TIMEOUT_US / SECOND_US,
        spent_us: Instant | None = None,
        is_lost: bool = False,
    ) -> Exception | None:
        """Do the same; what fails is returned, and tried again for a while."""
        try:
            self.converge(job_id, within_s=within_s, spent_us=spent_us, is_lost=is_lost)
        except Exception as error:  # noqa: BLE001 - whatever failed, it is tried again
            self.owe(job_id, words_of(error), lambda: self.converge(job_id))
            return error
        return None

    def _accept(self) -> None:
        self._has_told = False
        self._on_accepted()

    def _refuse(self) -> None:
        """Say so, once, whoever asks meanwhile. Source: incident L4."""
        self.is_refused = True
        with self._lock:
            self._owed.clear()
            has_told, self._has_told = self._has_told, True
        if not has_told:
            logger.error("%s", REFUSED)
        self._on_refused()

    # --- what is owed ---

    def pending(self) -> tuple[Pending, ...]:
        """Return which jobs NAS may not agree with, and why."""
        with self._lock:
            unreadable = [(each.id or "", str(refusal(each)), False) for each in self._unreadable]
            owed = [(job_id, each.reason, each.is_busy) for job_id, each in self._owed.items()]
            return tuple(
                Pending(job_id=job_id, reason=reason, is_busy=is_busy)
                for job_id, reason, is_busy in unreadable + owed
            )

    def mark_unreadable(self, records: Sequence[Unreadable]) -> None:
        """Replace what is said of records that cannot be read, and log what was not known before."""
        with self._lock:
            known, self._unreadable = self._unreadable, records
        for record in records:
            if record not in known:
                logger.error("a job is not looked after: %s", refusal(record), extra={"job_id": record.id})

    def settle(self, key: str) -> None:
        """Forget what is owed to a job, or to all of them (an empty text)."""
        with self._lock:
            self._owed.pop(key, None)

    def owe(self, key: str, reason: str, work: Callable[[], None]) -> None:
        """Come back to a piece of work, ever more slowly, until it is settled; it is busy for a minute."""
        logger.warning("NAS may not agree", extra={"job_id": key, "reason": reason})
        with self._lock:
            self._owed[key] = _Owed(reason, work, monotonic() + FOLLOW_UP_DELAYS_US[0] / SECOND_US)
            self._has_more.set()
            if self._is_retrying:
                return
            self._is_retrying = True
        threading.Thread(target=self._retry, name="chronos-retry", daemon=True).start()

    def _retry(self) -> None:
        while (wait_s := self._wait_s()) is not None:
            self._has_more.wait(wait_s)
            with self._lock:
                due = [(key, owed) for key, owed in self._owed.items() if owed.due_s <= monotonic()]
            for key, owed in due:
                self._try(key, owed)

    def _wait_s(self) -> float | None:
        """Return how long there is nothing to try, seconds; None, once, when there is nothing any more."""
        with self._lock:
            self._has_more.clear()
            due_s = [owed.due_s for owed in self._owed.values() if owed.is_busy or not self._is_resting]
            if not due_s:
                self._is_retrying = False
                return None
        return max(0.0, min(due_s) - monotonic())

    def _try(self, key: str, owed: _Owed) -> None:
        error: BaseException | None = None
        try:
            owed.work()
        except BaseException as raised:  # noqa: BLE001 - the others are to be tried as well
            error = raised
        with self._lock:
            owed.tries += 1
            if error is not None:
                owed.reason = words_of(error)
            delay_us = flows.follow_up_delay_us(owed.tries, FOLLOW_UP_DELAYS_US)
            owed.due_s = monotonic() + delay_us / SECOND_US
            is_slow_now = owed.tries == len(FOLLOW_UP_DELAYS_US) and self._owed.get(key) is owed
        if is_slow_now:
            logger.error("%s", TRIED_SLOWLY, extra={"job_id": key})
