"""How the effects of the protocol are performed on a store and on NAS, and what comes back.

Nothing is decided here, and nothing is raised: whatever goes wrong is one of the protocol's events.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Container
from typing import TypeVar

from chronos.errors import ChronosError, InvalidClient, StaleRevision
from chronos.nas import ArmAnswer, AsyncNas
from chronos.protocol import machine
from chronos.protocol.job import Job, Liveness
from chronos.runner import words_of
from chronos.stores import JobStore

logger = logging.getLogger(__name__)

T = TypeVar("T")


class EffectPerformer:
    """Performs effects, for one event loop.

    Args:
        store: where the jobs are. Its calls may block; they are made in threads.
        nas: the client of NAS.
        liveness: returns what is known of the owner of a job's run. It is asked in the loop, after
            the job was read: what changed in the store since then makes the swap fail.
        converging: the jobs of which NAS was told something since it was last asked for its arms.
    """

    def __init__(
        self,
        store: JobStore,
        nas: AsyncNas,
        *,
        liveness: Callable[[Job | None], Liveness],
        converging: Container[str],
    ) -> None:
        self._store = store
        self._nas = nas
        self._liveness = liveness
        self._converging = converging
        self._is_identity_refused = False

    async def perform(self, effect: machine.Effect, deadline_s: float | None) -> machine.Event:
        """Perform one effect, and return what happened.

        Args:
            effect: any but the last ones of a flow, to which nothing comes back.
            deadline_s: until when NAS may take, by the loop's clock.

        Raises:
            ProtocolError: nothing comes back to such an effect.
        """
        match effect:
            case machine.LoadJob(job_id):
                return await self._ask_store(lambda: self._store.load(job_id), self._loaded)
            case machine.LoadJobs():
                return await self._ask_store(self._store.load_all, self._all_loaded)
            case machine.SwapJob():
                return await self._ask_store(lambda: self._swap(effect), self._swapped)
            case machine.ProvisionArm(job_id=job_id, fire_at_us=fire_at_us, revision=revision):
                arming = self._nas.provision(job_id, fire_at_us, revision=revision)
                return await self._ask_nas(job_id, arming, _accepted, deadline_s)
            case machine.CancelArm(job_id=job_id, revision=revision_or_none):
                disarming = self._nas.cancel(job_id, revision=revision_or_none)
                return await self._ask_nas(job_id, disarming, _accepted, deadline_s)
            case machine.ListArms():
                return await self._ask_nas("", self._nas.list_arms(), machine.ArmsListed, deadline_s)
        raise machine.ProtocolError(f"nothing comes back to {effect}")

    # --- The store ---

    async def _ask_store(
        self, request: Callable[[], T], event: Callable[[T], machine.Event]
    ) -> machine.Event:
        def guarded() -> T | machine.StoreFailed:
            try:
                return request()
            except ChronosError as error:
                logger.error("the job store failed: %s", error)
            except BaseException:  # a store that fails in a way nobody thought of has failed
                logger.exception("the job store failed")
            return machine.StoreFailed()

        found = await asyncio.to_thread(guarded)
        return found if isinstance(found, machine.StoreFailed) else event(found)

    def _loaded(self, job: Job | None) -> machine.Event:
        return machine.JobLoaded(job, self._liveness(job))

    def _all_loaded(self, jobs: tuple[Job, ...]) -> machine.Event:
        return machine.JobsLoaded([(job, self._liveness(job)) for job in jobs], self._converging)

    def _swap(self, effect: machine.SwapJob) -> tuple[bool, Job | None]:
        """Return whether the store moved, and the job as another process left it if not."""
        has_moved = self._store.swap(
            effect.job_id,
            expected=effect.expected,
            replacement=effect.replacement,
            outcomes=effect.outcomes,
        )
        return has_moved, None if has_moved else self._store.load(effect.job_id)

    def _swapped(self, found: tuple[bool, Job | None]) -> machine.Event:
        has_moved, job = found
        return machine.JobSwapped() if has_moved else machine.SwapConflicted(job, self._liveness(job))

    # --- NAS ---

    async def _ask_nas(
        self,
        job_id: str,
        request: Awaitable[T],
        event: Callable[[T], machine.Event],
        deadline_s: float | None,
    ) -> machine.Event:
        try:
            async with asyncio.timeout_at(deadline_s):
                answer = await request
        except StaleRevision as error:
            return machine.ArmOutdated(error.revision)
        except Exception as error:  # noqa: BLE001 - a client that fails in a way nobody thought of has failed
            self._log_failure(job_id, error)
            return machine.ArmFailed()
        self._is_identity_refused = False
        return event(answer)

    def _log_failure(self, job_id: str, error: Exception) -> None:
        """Say why NAS did not do as asked; say it once, when it is the same for all jobs and all times."""
        if not isinstance(error, InvalidClient):
            logger.warning("NAS did not agree", extra={"job_id": job_id, "error": words_of(error)})
        elif not self._is_identity_refused:
            self._is_identity_refused = True
            logger.error("%s", error, extra={"job_id": job_id})


def _accepted(answer: ArmAnswer) -> machine.Event:
    return machine.ArmAccepted(echoed=answer.echoed)
