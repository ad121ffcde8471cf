"""Managed cron: the scheduler that an agent embeds when its machine sleeps between jobs.

Names are loaded when they are first used: `import chronos` brings neither an HTTP client nor a
token library with it, since a machine that was woken by a fire waits for every import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chronos.agent.asyncio import AsyncScheduler
    from chronos.agent.declaring import JobSpec
    from chronos.agent.preview import next_after, next_times
    from chronos.agent.runner import RunContext
    from chronos.agent.scheduler import Scheduler
    from chronos.agent.status import JobStatus, Status
    from chronos.errors import (
        ChronosError,
        DataError,
        InvalidClient,
        JobsFileError,
        LocalMessageError,
        MessageError,
        NasError,
        NasRefused,
        NasUnavailable,
        NotSettled,
        RemoteMessageError,
        ScheduleError,
        SettingsError,
        StaleRevision,
        StoreError,
        TokenError,
    )
    from chronos.fire.verify import FireVerifier
    from chronos.fire.webhook import FireEndpoint
    from chronos.jobs.job import (
        Job,
        JobState,
        Lateness,
        Origin,
        Outcome,
        Result,
        Unreadable,
        Verdict,
        lateness,
    )
    from chronos.jobs.policy import CatchUp, OnInterrupt, Overlap, Policy
    from chronos.jobs.schedule import Cron, Interval, Once, parse_schedule
    from chronos.nas.client import AsyncNasClient, NasClient
    from chronos.nas.tokens import AsyncCachedToken, CachedToken
    from chronos.protocol.flow_effects import Answer
    from chronos.protocol.state import Pending, Started
    from chronos.stores import JobStore, JsonFileStore, MemoryStore
    from chronos.stores import SqlStore as SqlStore

_MODULES = {
    "chronos.agent.declaring": ("JobSpec",),
    "chronos.errors": (
        "ChronosError",
        "DataError",
        "InvalidClient",
        "JobsFileError",
        "LocalMessageError",
        "MessageError",
        "NasError",
        "NasRefused",
        "NasUnavailable",
        "NotSettled",
        "RemoteMessageError",
        "ScheduleError",
        "SettingsError",
        "StaleRevision",
        "StoreError",
        "TokenError",
    ),
    "chronos.nas.client": ("AsyncNasClient", "NasClient"),
    "chronos.protocol.state": ("Pending", "Started"),
    "chronos.agent.preview": ("next_after", "next_times"),
    "chronos.jobs.job": (
        "Job",
        "JobState",
        "Lateness",
        "Origin",
        "Outcome",
        "Result",
        "Unreadable",
        "Verdict",
        "lateness",
    ),
    "chronos.jobs.policy": ("CatchUp", "OnInterrupt", "Overlap", "Policy"),
    "chronos.protocol.flow_effects": ("Answer",),
    "chronos.jobs.schedule": ("Cron", "Interval", "Once", "parse_schedule"),
    "chronos.agent.runner": ("RunContext",),
    "chronos.agent.asyncio": ("AsyncScheduler",),
    "chronos.agent.scheduler": ("Scheduler",),
    "chronos.agent.status": ("JobStatus", "Status"),
    "chronos.stores": ("JobStore", "JsonFileStore", "MemoryStore", "SqlStore"),
    "chronos.nas.tokens": ("AsyncCachedToken", "CachedToken"),
    "chronos.fire.verify": ("FireVerifier",),
    "chronos.fire.webhook": ("FireEndpoint",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

# `SqlStore` is there as well; it needs an extra, which `from chronos import *` must not ask for.
__all__ = [  # noqa: RUF022 - by subject, as the documentation has them
    # jobs and schedules
    "Job",
    "JobState",
    "Policy",
    "CatchUp",
    "Overlap",
    "OnInterrupt",
    "Outcome",
    "Result",
    "Origin",
    "Lateness",
    "lateness",
    "Unreadable",
    "Verdict",
    "Answer",
    "Cron",
    "Interval",
    "Once",
    "next_after",
    "next_times",
    "parse_schedule",
    # the scheduler
    "Scheduler",
    "AsyncScheduler",
    "JobSpec",
    "RunContext",
    "Started",
    "Pending",
    "Status",
    "JobStatus",
    "NasClient",
    "AsyncNasClient",
    "CachedToken",
    "AsyncCachedToken",
    "FireVerifier",
    "FireEndpoint",
    # stores
    "JobStore",
    "MemoryStore",
    "JsonFileStore",
    # errors
    "ChronosError",
    "DataError",
    "InvalidClient",
    "JobsFileError",
    "LocalMessageError",
    "MessageError",
    "NasError",
    "NasRefused",
    "NasUnavailable",
    "NotSettled",
    "RemoteMessageError",
    "ScheduleError",
    "SettingsError",
    "StaleRevision",
    "StoreError",
    "TokenError",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
