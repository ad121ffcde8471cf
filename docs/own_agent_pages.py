"""What the page of schedulers of one's own says: the interface, and the worked example with its findings.

The findings are the output of the commands that the page shows, run where the page says.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from msgspec import Struct
from writing import block, code, first_line, prose, table

from docs.examples import own_agent
from simulator import own
from simulator.own.environment import GIVEN, Nas, Store
from simulator.trace import VIOLATION

_HERE = Path(__file__).resolve().parent

# --- the interface ----------------------------------------------------------------------------


def _given() -> str:
    """Return what a factory may name, in the words of the package."""
    rows = re.findall(r"^\| (`(\w+).*?`) \| (.*) \|$", inspect.getdoc(own) or "", re.MULTILINE)
    assert tuple(name for _, name, _ in rows) == GIVEN
    return table(["Argument", "What it is"], ([shown, words] for shown, _, words in rows))


def _methods(cls: type) -> str:
    """Return what a class says of itself, and a table of its methods."""
    methods = {name: getattr(cls, name) for name in vars(cls) if not name.startswith("_")}
    rows = ([code(_call(name, method)), first_line(method)] for name, method in methods.items())
    shown = code(cls.__name__.lower())
    return f"**{shown}.** {prose(cls)}\n\n{table([f'Of {shown}', 'What it does'], rows)}"


def _call(name: str, method: Callable[..., Any]) -> str:
    """Return how a method is called; a default that has no name is left open."""
    parameters = []
    for each in inspect.signature(method).parameters.values():
        is_named = each.default is None or isinstance(each.default, bool | str | float | tuple)
        default = each.empty if each.default is each.empty else each.default if is_named else ...
        if each.name != "self":
            parameters.append(each.replace(annotation=each.empty, default=default))
    shown = str(inspect.Signature(parameters)).replace("Ellipsis", "…")
    return name + shown


# --- the worked example -----------------------------------------------------------------------

_FACTORY = "own_agent:"
_FLEET = "quiet-month --days 5 --faults heavy"
_CASE = "--case 'one occurrence, and somebody pauses the job'"


class Step(Struct, frozen=True):
    """A step of the example.

    Attributes:
        name: its class.
        check: the rest of the command that searches it.
        shrink: the rest of the command that shrinks what is left; empty when nothing is.
    """

    name: str
    check: str
    shrink: str = ""

    @property
    def agent(self) -> str:
        """The option that names it."""
        return f"--agent {_FACTORY}{self.name}"


STEPS = (
    Step("Plausible", f"{_CASE} --limit 1000", "--seed 0 --property NO-LOST-REARM"),
    Step("ArmsFirst", f"{_CASE} --limit 1000", "--seed 1 --property NO-ORPHAN"),
    Step("AsksAgain", f"{_CASE} --limit 1000", "--seed 4 --property EVERY-OCCURRENCE"),
    Step("Lasts", f"{_CASE} --duplicates 0 --losses 0 --explore --follow 1,1,1,8,2,1,7"),
)


def _commands() -> dict[str, str]:
    """Return the commands that the page shows, by part."""
    commands = {}
    for number, step in enumerate(STEPS, start=1):
        commands[f"own_agent_{number}_run"] = f"run {_FLEET} {step.agent} --seeds 6"
        commands[f"own_agent_{number}_check"] = f"check {step.agent} {step.check}"
        if step.shrink:
            commands[f"own_agent_{number}_shrink"] = f"shrink {_FLEET} {step.agent} {step.shrink}"
    return commands


COMMANDS = _commands()


class Found(Struct, frozen=True):
    """What a command of the page has found.

    Attributes:
        output: what it prints.
        page: the page that it writes, where it does.
        line: the number of the last line on that page before the violation.
    """

    output: str
    page: str = ""
    line: int = 0


@cache
def _found() -> Mapping[str, Found]:
    """Return what each command finds, by part."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(COMMANDS, pool.map(_performed, COMMANDS.values()), strict=True))


def _performed(command: str) -> Found:
    environment = {**os.environ, "PYTHONPATH": str(_HERE.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    with TemporaryDirectory() as folder:
        page, trace = Path(folder) / "page.html", Path(folder) / "trace.jsonl"
        shown = ["--html", str(page), "--trace", str(trace)] if command.startswith("shrink") else []
        done = subprocess.run(
            [sys.executable, "-m", "simulator", *shlex.split(command), *shown],
            cwd=_HERE / "examples",
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in (0, 1, 3):  # ok, violated, inconclusive
            raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr}")
        if not shown:
            return Found(done.stdout)
        lines = map(json.loads, trace.read_text(encoding="utf-8").splitlines())
        violation = next(line["number"] for line in lines if line["kind"] == VIOLATION)
        return Found(done.stdout, page.read_text(encoding="utf-8"), violation - 1)


def _sample(part: str) -> str:
    """Return a command with what matters of its output, without how fast it was."""
    lines = re.sub(r", [\d,]+ states/s(?: per core)?", "", _found()[part].output).splitlines()
    kept = lines
    if part.endswith("_run"):
        kept = lines[: next(n for n, line in enumerate(lines) if line.startswith("fires"))]
    elif "--explore" in COMMANDS[part]:
        first = next(n for n, line in enumerate(lines) if line.startswith("step"))
        kept = [line for line in lines[first:] if not line.startswith("choose")]
    return block("\n".join([f"$ python -m simulator {COMMANDS[part]}", *kept]))


def _source(name: str) -> str:
    return block(inspect.getsource(getattr(own_agent, name)), "python")


def _link(number: int) -> str:
    """Return a link to the page of a step, at the last moment before the violation."""
    line = _found()[f"own_agent_{number}_shrink"].line
    return f"[See it as a page](see/own-agent-{number}.html#line={line})"


def downloads() -> dict[str, str]:
    """Return the pages of what the example is caught with, as files of the site, by path."""
    return {
        f"see/own-agent-{number}.html": _found()[f"own_agent_{number}_shrink"].page
        for number, step in enumerate(STEPS, start=1)
        if step.shrink
    }


PARTS: Mapping[str, Callable[[], str]] = {
    "own_agent_given": _given,
    "own_agent_store": partial(_methods, Store),
    "own_agent_nas": partial(_methods, Nas),
    **{f"own_agent_{number}": partial(_source, step.name) for number, step in enumerate(STEPS, start=1)},
    **{part: partial(_sample, part) for part in COMMANDS},
    **{
        f"own_agent_{number}_see": partial(_link, number)
        for number, step in enumerate(STEPS, start=1)
        if step.shrink
    },
}
