"""Managed cron as a provider: what a host discovers, chooses, starts, and passes fires on to."""

from __future__ import annotations

from chronos.errors import NotSettled, SettingsError
from chronos.provider.hermes import HermesCron, register
from chronos.provider.interface import CronScheduler
from chronos.provider.managed import BuiltinCron, ManagedCron
from chronos.provider.resolver import resolve
from chronos.provider.settings import (
    Settings,
    VerifierSettings,
    provider_from,
    settings_from,
)

__all__ = [
    "BuiltinCron",
    "CronScheduler",
    "HermesCron",
    "ManagedCron",
    "NotSettled",
    "Settings",
    "SettingsError",
    "VerifierSettings",
    "provider_from",
    "register",
    "resolve",
    "settings_from",
]
