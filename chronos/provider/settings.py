"""What the configuration says of managed cron, as values.

The keys are the contract's: `cron.provider`, and under `cron.chronos` the URLs of both sides and what
the fires are verified by. Reading a file is the host's work; here is what its content means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from chronos.contract.messages import callback_url_problem
from chronos.errors import SettingsError

_URL = re.compile(r"https?://[^/\s]\S*")
_USER = re.compile(r"https?://[^/?#\s]*@")
_AUDIENCE = re.compile(r"agent:\S+")


class VerifierSettings(Struct, frozen=True, kw_only=True):
    """What fires are verified by; the arguments of `chronos.FireVerifier`.

    Attributes:
        audience: this agent, `agent:{instance_id}`.
        issuer: NAS's base URL.
        jwks_url: where NAS publishes its keys.
    """

    audience: str
    issuer: str
    jwks_url: str


class Settings(Struct, frozen=True, kw_only=True):
    """The configuration of managed cron.

    Attributes:
        portal_url: NAS's base URL.
        callback_url: this agent's public base URL, to which NAS delivers fires.
        verifier: what fires are verified by; None when no launch configuration was given.
    """

    portal_url: str
    callback_url: str
    verifier: VerifierSettings | None = None


def provider_from(config: Mapping[str, Any]) -> str:
    """Return the name under `cron.provider`; empty for the built-in ticker.

    Raises:
        SettingsError: it is no text.
    """
    reader = _Reader(config)
    name = reader.at("cron.provider")
    if name is not None and name is not _REFUSED and not isinstance(name, str):
        reader.problems.append(f"cron.provider is {_shown(name)}; expected the name of a provider")
    reader.finish()
    return (name or "").strip()


def settings_from(config: Mapping[str, Any], *, launch: Mapping[str, Any] | None = None) -> Settings:
    """Read the configuration of managed cron.

    Args:
        config: the agent's configuration, nested as it is in its file. It may be a tenant's profile.
        launch: the configuration that the process itself was launched with, alike nested; None where
            this process verifies no fires. All that the verifier believes is read from here alone:
            who may change a tenant's profile could otherwise name keys of their own, and fire jobs.
            Where there are no tenants, pass the same as *config*.

    The portal's URL decides where the agent's access token goes. It is read from *launch* where that is
    given; where tenants have profiles of their own, give it, or they can send the token to anybody.

    Returns:
        The settings; every text in them is one of its kind, and without space around it.

    Raises:
        SettingsError: a key is missing or is something else; all of them are told at once. A URL with
            a user or a password is refused too, and what may have a password is not shown.

    Source: contract, "Configuration and fallback" and "Trust".
    """
    reader = _Reader(config)
    if launch is None:
        portal_url, callback_url = reader.url("portal_url"), reader.url("callback_url")
        reader.finish()
        return Settings(portal_url=portal_url, callback_url=callback_url)
    of_launch = _Reader(launch, where=" of the launch configuration")
    portal_url, callback_url = of_launch.url("portal_url"), reader.url("callback_url")
    verifier = VerifierSettings(
        audience=of_launch.text("expected_audience", _AUDIENCE, "agent:{instance_id}"),
        issuer=portal_url,
        jwks_url=of_launch.url("nas_jwks_url"),
    )
    reader.problems += of_launch.problems
    reader.finish()
    return Settings(portal_url=portal_url, callback_url=callback_url, verifier=verifier)


class _Reader:
    """A configuration that is being read; it collects what is wrong."""

    def __init__(self, config: Mapping[str, Any], where: str = "") -> None:
        self.problems: list[str] = []
        self._config = config
        self._where = where

    def at(self, path: str) -> Any:
        """Return what is under a dotted path; None when there is nothing."""
        found: Any = self._config
        names = path.split(".")
        for depth, name in enumerate(names):
            if found is None:
                return None
            if not isinstance(found, Mapping):
                above = ".".join(names[:depth]) or "the configuration"
                problem = f"{above}{self._where} is {_shown(found)}; expected a mapping with {name}"
                if problem not in self.problems:
                    self.problems.append(problem)
                return _REFUSED
            found = found.get(name)
        return found

    def url(self, name: str) -> str:
        url = self.text(name, _URL, "an http or https URL")
        if _USER.match(url):
            self.problems.append(
                f"cron.chronos.{name}{self._where} has a user or a password in it; expected a URL without"
            )
        elif name == "callback_url" and (problem := callback_url_problem(url)):
            self.problems.append(f"cron.chronos.{name} {problem}")
        return url

    def text(self, name: str, pattern: re.Pattern[str], expected: str) -> str:
        """Return the text under `cron.chronos`; an empty one, and a problem, when it is none."""
        path = f"cron.chronos.{name}"
        found = self.at(path)
        if isinstance(found, str) and pattern.fullmatch(found.strip()):
            return found.strip()
        if found is not _REFUSED:
            self.problems.append(f"{path}{self._where} is {_shown(found)}; expected {expected}")
        return ""

    def finish(self) -> None:
        """Raise what is wrong, if anything."""
        if self.problems:
            raise SettingsError(*self.problems)


def _shown(found: object) -> str:
    """Return what a message shows of a value: all of it, unless it may have a password, as URLs do."""
    if found is None:
        return "missing"
    return "not shown, since it may have a password in it" if "@" in repr(found) else repr(found)


_REFUSED = object()
