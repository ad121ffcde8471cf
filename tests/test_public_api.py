"""What the package promises to whoever imports it."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import chronos
from chronos import ChronosError, ScheduleError, errors, events, provider, values
from chronos.contract import wire

CHRONOS = Path(chronos.__file__).parent
PURE_PACKAGES = ("jobs", "protocol", "contract")
PURE_PREFIXES = tuple(f"chronos.{name}" for name in PURE_PACKAGES)

# What the pure part may use of the world: none of these does I/O, reads a clock or keeps state of its own.
PURE = {
    "__future__",
    "attrs",
    "bisect",
    "calendar",
    "collections",
    "copy",
    "cronsim",
    "dataclasses",
    "datetime",
    "enum",
    "functools",
    "heapq",
    "itertools",
    "json",
    "math",
    "msgspec",
    "operator",
    "re",
    "types",
    "typing",
    "zoneinfo",
}

EXPORTED = [
    "Answer",
    "AsyncCachedToken",
    "AsyncNasClient",
    "AsyncScheduler",
    "CachedToken",
    "CatchUp",
    "ChronosError",
    "Cron",
    "DataError",
    "FireEndpoint",
    "FireVerifier",
    "Interval",
    "InvalidClient",
    "Job",
    "JobSpec",
    "JobState",
    "JobStatus",
    "JobStore",
    "JobsFileError",
    "JsonFileStore",
    "Lateness",
    "LocalMessageError",
    "MemoryStore",
    "MessageError",
    "NasClient",
    "NasError",
    "NasRefused",
    "NasUnavailable",
    "NotSettled",
    "OnInterrupt",
    "Once",
    "Origin",
    "Outcome",
    "Overlap",
    "Pending",
    "Policy",
    "RemoteMessageError",
    "Result",
    "RunContext",
    "ScheduleError",
    "Scheduler",
    "SettingsError",
    "StaleRevision",
    "Started",
    "Status",
    "StoreError",
    "TokenError",
    "Unreadable",
    "Verdict",
    "lateness",
    "next_after",
    "next_times",
    "parse_schedule",
]


def test_the_exported_names_are_these() -> None:
    """A name is added or taken away on purpose, and seen in review."""
    assert sorted(chronos.__all__) == sorted(EXPORTED)


@pytest.mark.parametrize("name", [*EXPORTED, "SqlStore"])
def test_an_exported_name_is_there_and_documented(name: str) -> None:
    """Each of them loads, and says what it is."""
    value = getattr(chronos, name)
    assert value.__doc__
    assert name in dir(chronos)


def test_the_names_of_the_providers_are_these() -> None:
    """What hosts of providers import; each is documented."""
    assert sorted(provider.__all__) == [
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
    assert all(getattr(provider, name).__doc__ for name in provider.__all__)


def test_a_name_that_is_not_exported_is_an_attribute_error() -> None:
    """As in any module."""
    with pytest.raises(AttributeError, match="no attribute 'Nope'"):
        chronos.Nope  # noqa: B018


def test_every_error_is_in_one_tree_and_exported() -> None:
    """Whoever handles `ChronosError` handles all of them; what is about a value is a `ValueError` as well."""
    for module in pkgutil.walk_packages(chronos.__path__, "chronos."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    todo, tree = [ChronosError], set[type[Exception]]()
    while todo:
        cls = todo.pop()
        tree.add(cls)
        todo += [each for each in cls.__subclasses__() if each.__module__.startswith("chronos.")]
    assert {cls.__name__ for cls in tree} <= set(chronos.__all__)
    assert all(f"{cls.__name__}:" in (errors.__doc__ or "") for cls in tree)
    assert tree >= {provider.NotSettled, provider.SettingsError, wire.LocalMessageError}
    assert {ScheduleError, wire.LocalMessageError, wire.RemoteMessageError} <= tree & set(
        all_below(ValueError)
    )


def all_below(cls: type[Exception]) -> Iterator[type[Exception]]:
    for each in cls.__subclasses__():
        yield each
        yield from all_below(each)


@pytest.mark.parametrize(
    "module",
    [
        Path(errors.__file__),
        Path(events.__file__),
        Path(values.__file__),
        *(each for name in PURE_PACKAGES for each in sorted((CHRONOS / name).glob("*.py"))),
    ],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_the_protocol_is_pure(module: Path) -> None:
    """No HTTP, clock, random numbers, log, thread or file: only what is known to be pure is imported."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            is_own = name.startswith(PURE_PREFIXES) or name in ("chronos", "chronos.errors", "chronos.values")
            assert is_own or name.split(".")[0] in PURE, name
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("now", "utcnow", "today"), f"{module.name} reads a clock"
        if isinstance(node, ast.Name):
            assert node.id not in ("open", "print", "input", "exec", "eval"), f"{module.name} does I/O"


def test_importing_the_package_is_light() -> None:
    """A machine that a fire has woken does not wait for libraries that it may not need."""
    code = "import sys, json, chronos; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    heavy = {
        "attrs",
        "msgspec",
        "httpx",
        "jwt",
        "cryptography",
        "sqlalchemy",
        "opentelemetry",
        "asyncio",
        "cronsim",
    }
    assert not loaded & (heavy | {"filelock", "logging"})


def test_the_modules_of_the_shell_load_their_libraries_when_they_are_used() -> None:
    """Neither an HTTP client, a token library nor a database comes with the classes that use them."""
    code = (
        "import sys, json; from chronos import *; import chronos.provider;"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert not loaded & {"httpx", "jwt", "cryptography", "sqlalchemy", "cattrs", "psycopg", "opentelemetry"}
