"""What an extra promises, and what it brings; `python -m tests.extras` installs and tries each of them."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import chronos
from tests.extras import PROOFS, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]

# Where each extra's programs begin. What they import, directly or through modules of this project, must
# come with the extra. Of the library by itself, that is whatever can be imported from `chronos`.
PROGRAMS: dict[str, list[str]] = {
    "": sorted({*chronos._HOME.values()} | {"chronos.provider", "chronos.testing"}),
    "sql": ["chronos.stores.sql"],
    "telemetry": ["chronos.agent.telemetry"],
    "example": ["docs.examples.agent"],
    "simulator": ["simulator.__main__"],
    "dask": ["simulator.executors"],
    "docs": [f"docs.{path.stem}" for path in sorted((ROOT / "docs").glob("*.py"))],
    "test": [f"tests.{path.stem}" for path in sorted((ROOT / "tests").glob("*.py"))],
}


@cache
def own(requirement: str) -> tuple[str, frozenset[str]]:
    """Return what a requirement installs: its name, and all that comes with it."""
    wanted = Requirement(requirement)
    name = canonicalize_name(wanted.name)
    if name == PROJECT["name"]:
        nested = [each for extra in wanted.extras for each in EXTRAS[extra]]
    else:
        try:
            nested = [each for each in requires(name) or () if _applies(Requirement(each), wanted.extras)]
        except PackageNotFoundError:
            nested = []  # of another platform
    return name, frozenset({name}.union(*(own(each)[1] for each in nested)))


def _applies(nested: Requirement, extras: set[str]) -> bool:
    return nested.marker is None or any(nested.marker.evaluate({"extra": extra}) for extra in ("", *extras))


def installed(extra: str) -> frozenset[str]:
    """Return the distributions of an environment in which the extra was installed."""
    requirements = [*PROJECT["dependencies"], *(EXTRAS[extra] if extra else ())]
    return frozenset[str]().union(*(own(each)[1] for each in requirements))


def _file_of(module: str) -> Path | None:
    """Return the file of a module of this project; None when it is none."""
    path = ROOT.joinpath(*module.split("."))
    found = (path.with_suffix(".py"), path / "__init__.py", ROOT / "docs" / f"{module}.py")
    return next((each for each in found if each.is_file()), None)


@cache
def _imported(path: Path) -> tuple[str, ...]:
    """Return the modules that a file imports, also within functions, but for the sake of types alone."""
    found: list[str] = []
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        for node in ast.iter_child_nodes(todo.pop()):
            match node:
                case ast.Import(names=names):
                    found += (alias.name for alias in names)
                case ast.ImportFrom(module=str(module), names=names):
                    found += (module, *(f"{module}.{alias.name}" for alias in names))
                case ast.If(test=ast.Name(id="TYPE_CHECKING")) | ast.expr():
                    pass
                case _:
                    todo.append(node)
    return tuple(found)


# What the library can do without, and where it is asked for: the extra that brings it.
OPTIONAL = {
    ("chronos.agent.telemetry", "opentelemetry"): "telemetry",
    ("chronos.stores", "chronos.stores.sql"): "sql",
    ("chronos.cli.survey", "sqlalchemy"): "sql",
    ("simulator.executors", "distributed"): "dask",
}


# What is not installed everywhere where tests are run: a package of an extra that `test` does without.
ELSEWHERE = {"docs": "material", "dask": "distributed"}


def implied(extra: str) -> frozenset[str]:
    """Return *extra*, and those that come with it."""
    nested = [Requirement(each) for each in EXTRAS.get(extra, ()) if each.startswith(PROJECT["name"])]
    return frozenset({extra}.union(*(implied(each) for wanted in nested for each in wanted.extras)))


def imported_by(extra: str) -> dict[str, str]:
    """Return the packages from elsewhere that the programs of an extra import, and where each is."""
    todo, seen, found = list(PROGRAMS[extra]), set[str](), dict[str, str]()
    left_out = {place for place, where in OPTIONAL.items() if where not in implied(extra)}
    while todo:
        module = todo.pop()
        path = _file_of(module)
        if module in seen or path is None:
            continue
        seen.add(module)
        for name in _imported(path):
            top = name.partition(".")[0]
            if left_out & {(module, top), (module, name)}:
                continue
            if _file_of(name) is not None:
                todo.append(name)
            elif not (_file_of(top) or ROOT.joinpath(top).is_dir() or top in sys.stdlib_module_names):
                found.setdefault(top, module)
    return found


_owners = cache(packages_distributions)


@pytest.mark.parametrize("extra", PROGRAMS)
def test_extra_brings_what_its_programs_import(extra: str) -> None:
    """Whoever installs it, and nothing else, has all packages that are imported for what it is for."""
    if extra in ELSEWHERE:
        pytest.importorskip(ELSEWHERE[extra])  # where it is not installed, nobody knows what comes with it
    imported, there, owners = imported_by(extra), installed(extra), _owners()
    assert imported, "nothing was looked at"
    missing = {
        f"{package} in {module}"
        for package, module in imported.items()
        if not there & {canonicalize_name(name) for name in owners.get(package, ())}
    }
    assert not missing


def test_every_extra_is_tried_by_a_proof_of_its_own() -> None:
    """One that is new does not go untried, and none is tried that is gone."""
    assert PROOFS.keys() == EXTRAS.keys() | {"bare"}


def test_readme_tells_every_package_and_its_extra() -> None:
    """Its table is what the project asks for, no less and no more."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition("\n## Dependencies\n")[2].partition("\n## ")[0]
    told: dict[str, str] = {}
    for row in re.findall(r"^\| (.+?) \|", section, flags=re.MULTILINE)[1:]:
        for group in row.split("; "):
            names, _, extra = group.partition(" (`")
            told |= {
                canonicalize_name(name): extra.removesuffix("`)") for name in re.split(r", | with ", names)
            }
    asked = {canonicalize_name(Requirement(each).name): "" for each in PROJECT["dependencies"]}
    asked |= {"cryptography": ""}  # of PyJWT's own extra
    for extra, requirements in EXTRAS.items():
        asked |= {canonicalize_name(Requirement(each).name): extra for each in requirements}
    del asked[PROJECT["name"]]
    assert told == asked
