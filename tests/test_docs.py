"""The documentation: it builds, says what the code says, needs no network, and its examples run."""

from __future__ import annotations

import ast
import asyncio
import doctest
import importlib
import inspect
import itertools
import json
import os
import re
import runpy
import shlex
import signal
import socket
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import httpx
import pytest
from filelock import FileLock
from msgspec.structs import asdict, fields

import chronos
import chronos.testing
from chronos import AsyncScheduler, FireVerifier, Interval, Job, JsonFileStore, MemoryStore, Scheduler
from chronos.clock import now_us
from chronos.contract.messages import REGISTRY
from chronos.contract.schema import json_schema, vectors
from chronos.contract.wire import fields_of
from chronos.errors import ChronosError
from chronos.jobs.instants import HOUR_US, SECOND_US, datetime_of
from chronos.protocol import flow as flows
from chronos.stores.record import read_document
from chronos.testing import AsyncLocalNas, LocalNas, Promises
from docs.examples import own_agent
from simulator import command_line
from simulator.faults import DECISIONS, LEVELS
from simulator.own.environment import GIVEN, Nas, Store
from simulator.own.loading import METHODS
from simulator.properties import PROPERTIES
from simulator.scenario_file import names, shipped
from simulator.scenario_forms import COUNTS, TABLES, Form, schema
from simulator.script import Do
from simulator.written import DONE, STRIKING

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
HAND_WRITTEN = sorted(DOCS.rglob("*.md"))


# Whose scheduler NAS uses is NAS's own matter: no name of one belongs into what this project ships.
@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Return the site, built once for all workers; a warning fails the build."""
    pytest.importorskip("material")
    shared = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        shared = shared.parent
    folder, is_built = shared / "site", shared / "site.built"
    with FileLock(shared / "site.lock"):
        if not is_built.exists():
            command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
            built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            assert built.returncode == 0, built.stderr
            is_built.touch()
    return folder


def text_of(page: Path) -> str:
    """Return what a reader sees of a page, without the white space between."""
    parts: list[str] = []

    class Reader(HTMLParser):
        def handle_data(self, data: str) -> None:
            parts.append(data)

    Reader().feed(page.read_text(encoding="utf-8"))
    return "".join(parts)


# --- what the code says -----------------------------------------------------------------------


def test_contract_page_tells_every_message_and_field(site: Path) -> None:
    """Each message has a section, with each field's name, rule and meaning, and each status."""
    page = site / "contract" / "messages.html"
    html, text = page.read_text(encoding="utf-8"), text_of(page)
    for cls, about in REGISTRY.items():
        start = html.index(f'<h3 id="{cls.__name__.lower()}"')
        section = html[start : html.find("<h3", start + 1)]
        assert all(f">{field.name}</code>" in section for field in fields_of(cls))
        assert all(f"<td>{status}</td>" in section for status in about.statuses)
        assert all(plain(field.meaning) in text for field in fields_of(cls))
        assert all(f"{each.method} {each.path}" in text for each in about.endpoints)


def plain(words: str) -> str:
    return words.replace("`", "")


def test_schemas_and_vectors_are_those_of_the_code(site: Path) -> None:
    """Whoever writes the other side downloads what validates this one."""
    for cls in REGISTRY:
        schema = json.loads((site / "contract" / "schemas" / f"{cls.__name__}.json").read_text("utf-8"))
        assert schema == json_schema(cls)
        found = json.loads((site / "contract" / "vectors" / f"{cls.__name__}.json").read_text("utf-8"))
        assert found == json.loads(json.dumps([asdict(vector) for vector in vectors(cls)]))


def test_properties_page_tells_every_property(site: Path) -> None:
    """Each has an anchor, its sentence, and links to its incidents, which are told."""
    page = site / "reference" / "properties.html"
    html, text = page.read_text(encoding="utf-8"), text_of(page)
    incidents = (site / "incidents.html").read_text(encoding="utf-8")
    for each in PROPERTIES:
        assert f'id="{each.id.lower()}"' in html
        assert each.statement in text
        for incident in each.incidents:
            assert f"../incidents.html#{incident.lower()}" in html
            assert f'<span id="{incident.lower()}">' in incidents


def test_every_incident_is_decided_by_something(site: Path) -> None:
    """A row names a property, a promise of NAS, or a test whose docstring names the incident."""
    html = (site / "incidents.html").read_text(encoding="utf-8")
    rows = (re.findall(r"<td>(.*?)</td>", row, re.DOTALL) for row in html.split("<tr>"))
    told = {re.sub("<.*?>", "", cells[0]): cells[-1] for cells in rows if cells}
    assert len(told) > 40
    assert [each for each, decided in told.items() if "<a " not in decided and "test_" not in decided] == []


def test_every_promise_of_nas_is_told(site: Path) -> None:
    """Each has an anchor that incidents link to."""
    html = (site / "contract" / "nas.html").read_text(encoding="utf-8")
    assert all(f'<span id="{field.name}">' in html for field in fields(Promises))


def test_protocol_page_tells_every_transition(site: Path) -> None:
    """The table has a row for each phase and event, and the drawing is part of the page."""
    page = site / "reference" / "protocol.html"
    rows = re.findall(r"<tr>.*?</tr>", page.read_text(encoding="utf-8"), re.DOTALL)
    for phase, events in flows.TRANSITIONS.items():
        for event, handler in events.items():
            words = (handler.__doc__ or "").partition("\n")[0]
            assert any(f">{phase}<" in row and f">{event.__name__}<" in row and words in row for row in rows)
    assert page.read_text(encoding="utf-8").count("<svg viewBox") >= 2


def test_simulator_pages_tell_every_scenario_fault_and_command(site: Path) -> None:
    """What the command line takes is what the pages tell."""
    assert all(name in text_of(site / "reference" / "scenarios.html") for name in names())
    told = text_of(site / "reference" / "faults.html")
    assert all(level in told and words in told for level, words in LEVELS.items())
    assert all(each.name in told and each.reason in told for each in DECISIONS)
    linked = (site / "reference" / "faults.html").read_text(encoding="utf-8")
    assert all(f"#{incident.lower()}" in linked for each in DECISIONS for incident in each.incidents)
    shown = text_of(site / "reference" / "command-line.html")
    options = re.findall(r"--[a-z]+", command_line._parser().format_help())
    assert all(option in shown for option in options)


def test_page_of_scenarios_tells_every_key_and_value(site: Path) -> None:
    """What a file may say is what the page tells; the schema lies beside it."""
    told = text_of(site / "scenarios.html")
    for kind in (Form, *TABLES.values()):
        assert all(each.name in told for each in fields(kind))
    assert all(each in told for each in (*Do, *STRIKING, *DONE, *COUNTS))
    assert json.loads((site / "scenario.schema.json").read_text(encoding="utf-8")) == schema()


def test_scenario_of_an_incident_and_the_incident_link_to_each_other(site: Path) -> None:
    """Whoever reads what went wrong finds where it is shown, and the other way round."""
    pages = [
        (site / name).read_text(encoding="utf-8") for name in ("incidents.html", "reference/scenarios.html")
    ]
    for name in names():
        incident = shipped(name).incident
        if f'id="{incident.lower()}"' in pages[0]:
            assert f"reference/scenarios.html#{name}" in pages[0]
            assert f"incidents.html#{incident.lower()}" in pages[1]


def test_errors_page_tells_every_error(site: Path) -> None:
    """The tree of exceptions is the code's."""
    text = text_of(site / "reference" / "errors.html")
    todo: list[type[Exception]] = [ChronosError]
    while todo:
        cls = todo.pop()
        assert cls.__name__ in text
        todo += [each for each in cls.__subclasses__() if each.__module__.startswith("chronos.")]


def test_decisions_are_numbered_and_listed() -> None:
    """The list has every note, and every note has the parts that are asked of it."""
    notes = sorted(path for path in (DOCS / "decisions").glob("*.md") if path.name != "index.md")
    listed = (DOCS / "decisions" / "index.md").read_text(encoding="utf-8")
    assert [path.name[:4] for path in notes] == [f"{number:04}" for number in range(1, len(notes) + 1)]
    for path in notes:
        note = path.read_text(encoding="utf-8")
        assert f"({path.name})" in listed
        assert re.findall(r"^## (.*)$", note, re.MULTILINE) == ["Context", "Decision", "Consequence"]


@pytest.mark.parametrize(("page", "example"), [("embed", "embed"), ("testing", "test_agent")])
def test_a_page_shows_its_example(site: Path, page: str, example: str) -> None:
    """The lines are on the page, and are those that a test runs."""
    shown = (DOCS / "examples" / f"{example}.py").read_text(encoding="utf-8")
    assert shown in text_of(site / f"{page}.html")


OWN_STEPS = {
    "Plausible": {"NO-LOST-REARM", "NO-ORPHAN", "EVERY-OCCURRENCE"},
    "ArmsFirst": {"NO-ORPHAN", "EVERY-OCCURRENCE"},
    "AsksAgain": {"EVERY-OCCURRENCE"},
    "Lasts": set(),
}
"""What the simulation finds in each step of the worked example, as the text of its page says."""


def test_the_page_of_own_schedulers_shows_each_step_and_what_is_found_in_it(site: Path) -> None:
    """The code is that of the file, and the text beside the output is true of it."""
    text = text_of(site / "own-agent.html")
    for name, found in OWN_STEPS.items():
        assert inspect.getsource(getattr(own_agent, name)) in text
        output = text.partition(f"--agent own_agent:{name} --seeds 6\n")[2].partition("\nruns ")[0]
        assert set(re.findall(r"^violated +(\S+) in ", output, re.MULTILINE)) == found
    assert "seeds      0 to 5: 6 ok" in text
    searched = text.partition("--agent own_agent:Plausible --case")[2].partition("verdict ")[0]
    assert {"NO-ORPHAN", "NO-LOST-REARM"} == set(re.findall(r"^violated +(\S+):", searched, re.MULTILINE))
    assert "violated   NO-ORPHAN" in text.partition("--explore --follow")[2]


def test_the_page_of_own_schedulers_tells_the_interface(site: Path) -> None:
    """What a factory may name, each call, and the methods that an agent must have."""
    text = text_of(site / "own-agent.html")
    calls = [name for cls in (Store, Nas) for name in vars(cls) if not name.startswith("_")]
    assert [name for name in (*GIVEN, *calls, *METHODS) if name not in text] == []


def test_what_own_schedulers_are_caught_with_is_a_page(site: Path) -> None:
    """Each step but the last has one, and the text links to it."""
    html = (site / "own-agent.html").read_text(encoding="utf-8")
    for number, name in enumerate(OWN_STEPS, start=1):
        page = site / "see" / f"own-agent-{number}.html"
        assert page.exists() is bool(OWN_STEPS[name]) is (f'href="see/own-agent-{number}.html#line=' in html)
        assert not page.exists() or f"own_agent:{name}" in page.read_text(encoding="utf-8")


def test_every_page_is_filled_in(site: Path) -> None:
    """No reader sees the name of a part, or of an example, in the place of its text."""
    left = re.compile(r"\{\{ [\w-]+ \}\}|--8\s*<")
    assert not [page.name for page in site.rglob("*.html") if left.search(text_of(page))]


# --- no network -------------------------------------------------------------------------------

_LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "use": "href", "object": "data"}


def test_no_page_loads_anything_from_the_network(site: Path) -> None:
    """Scripts, styles, fonts and images come from the site itself.

    The theme's own script knows three addresses, and asks none of them here: that of mermaid, for a page
    with a mermaid block; that of a code host, for a site with a repository link; and that of a polyfill,
    for browsers of a decade ago.
    """
    found: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, given: list[tuple[str, str | None]]) -> None:
            attributes = {name: value or "" for name, value in given}
            found.append(attributes.get(_LOADS.get(tag, ""), ""))
            if tag == "link" and attributes.get("rel") not in ("next", "prev", "canonical"):
                found.append(attributes.get("href", ""))
            assert "mermaid" not in attributes.get("class", "")
            assert attributes.get("data-md-component") != "source"
            found.extend(re.findall(r"url\((.*?)\)", attributes.get("style", "")))

    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text(encoding="utf-8")
        Reader().feed(text)
        found += (
            each for style in re.findall(r"<style.*?</style>", text, re.DOTALL) for each in _loads(style)
        )
    for sheet in site.rglob("*.css"):
        found += _loads(sheet.read_text(encoding="utf-8"))
    assert not [each for each in found if re.match(r"[\"']?(https?:)?//", each)]


def _loads(css: str) -> list[str]:
    return re.findall(r"url\(([^)]*)\)", css) + re.findall(r"@import\s+([^;]+)", css)


# --- examples run -----------------------------------------------------------------------------


def blocks(language: str) -> list[Any]:
    """Return the fenced blocks of a language in the hand-written pages."""
    fenced = re.compile(rf"^ *```{language}\b[^\n]*\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
    return [
        pytest.param(block, id=path.stem)
        for path in HAND_WRITTEN
        for block in fenced.findall(path.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize("block", blocks("pycon"))
def test_interactive_examples_show_what_happens(block: str) -> None:
    """What a page shows after the prompt is what Python says."""
    test = doctest.DocTestParser().get_doctest(block, {}, "docs", None, 0)
    assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.parametrize("block", blocks("console"))
def test_commands_are_understood(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command of the simulator that a page shows is one."""
    monkeypatch.syspath_prepend(DOCS / "examples")
    for line in block.splitlines():
        if line.strip().startswith("$ python -m simulator "):
            command_line._parser().parse_args(shlex.split(line)[4:])


@pytest.mark.parametrize("block", blocks("json"))
def test_jobs_file_example_can_be_read(block: str) -> None:
    """The jobs file that a page shows is one."""
    (job,) = read_document(block, source="docs").jobs
    assert (job.id, job.policy.misfire_grace_us) == ("job-7", 900 * SECOND_US)


SHOWN_ALONE = re.compile(r"^# (?=.*\bawait |scheduler = )", re.MULTILINE)
"""What a page shows in a comment, since it is a line for a place of the reader's own."""


def python_of(page: Path) -> list[str]:
    """Return the Python that a page shows, block by block, with the examples that it brings in."""
    fenced = re.compile(r"^ *```py(?:thon)?\b[^\n]*\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
    snippet = re.compile(r'^--8<-- "(.*)"$', re.MULTILINE)

    def brought_in(match: re.Match[str]) -> str:
        return (DOCS / "examples" / match[1]).read_text(encoding="utf-8")

    found = fenced.findall(page.read_text(encoding="utf-8"))
    return [SHOWN_ALONE.sub("", snippet.sub(brought_in, block)) for block in found]


WITH_PYTHON = [page for page in [*HAND_WRITTEN, ROOT / "README.md"] if python_of(page)]


@attrs.define
class Reader:
    """Somebody who has an agent, and does what a page says.

    Attributes:
        nas: what answers at `https://portal.example`.
        ran: the jobs that were run.
    """

    nas: AsyncLocalNas
    ran: list[str] = attrs.field(factory=list)

    async def run_job(self, job_id: str) -> None:
        self.ran.append(job_id)

    async def follow(self, page: Path) -> dict[str, Any]:
        """Run the Python of a page, and return its names."""
        has = {"store": MemoryStore(), "nas": LocalNas().client(), "run": print, "Scheduler": Scheduler}
        names: dict[str, Any] = {"__name__": "example", **has}
        for block in python_of(page):
            code = compile(block, page.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, names)
            if inspect.isawaitable(result):
                await result
        return names


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """With what the pages assume: a jobs file, a NAS, and the module `my_agent`."""
    nas = AsyncLocalNas(clock=now_us, url="https://portal.example", audience="agent:inst-1")
    there, reader = nas.transport(), Reader(nas)
    for transport, method in (
        (httpx.AsyncHTTPTransport, "handle_async_request"),
        (httpx.HTTPTransport, "handle_request"),
    ):
        reached = getattr(there, method)
        monkeypatch.setattr(transport, method, lambda _self, request, reached=reached: reached(request))
    stop_event = threading.Event()
    stop_event.set()  # a provider's start returns
    urls = {"portal_url": "https://portal.example", "callback_url": "https://agent.example"}
    trust = {"expected_audience": "agent:inst-1", "nas_jwks_url": "https://portal.example/jwks.json"}
    config = {"cron": {"provider": "chronos", "chronos": {**urls, **trust}}}
    agent = ModuleType("my_agent")
    vars(agent).update(config=config, launch_config=config, store=MemoryStore(), stop_event=stop_event)
    vars(agent).update(access_token=lambda _fresh: nas.access_token, is_logged_in=lambda: True)
    vars(agent).update(run_job=reader.run_job)
    monkeypatch.setitem(sys.modules, "my_agent", agent)
    monkeypatch.chdir(tmp_path)
    JsonFileStore.create("jobs.json")
    return reader


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.stem)
def test_the_python_of_a_page_runs(reader: Reader, page: Path) -> None:
    """All blocks of a page, one after the other, with the lines that it shows in comments."""

    async def scenario() -> None:
        names = await reader.follow(page)
        if isinstance(names.get("scheduler"), AsyncScheduler):
            await names["scheduler"].drain(timeout_s=5)

    asyncio.run(scenario())


def test_what_a_page_shows_in_comments_is_run() -> None:
    """Those that await something, and no other comment."""
    shown = "\n".join(block for page in WITH_PYTHON for block in python_of(page))
    assert "\nawait scheduler.create(" in shown
    assert "\nscheduler = Scheduler(store, nas, run, hooks=" in shown
    assert "# goes on after the ten lines above" in shown


def test_the_example_of_embedding_runs(reader: Reader) -> None:
    """As it stands on the page: a fire is verified and accepted, the next one is armed, the job runs."""
    due_us = (now_us() // SECOND_US) * SECOND_US
    job = Job(id="job-7", schedule=Interval(period_us=HOUR_US, anchor_us=due_us), next_us=due_us)
    JsonFileStore("jobs.json").swap("job-7", expected=None, replacement=job)
    example = runpy.run_path(str(DOCS / "examples" / "embed.py"))
    nas = reader.nas

    async def scenario() -> None:
        nas.connect(example["scheduler"], example["app"])
        await example["scheduler"].start()
        assert nas.arms == {"job-7": job.next}
        assert job.next is not None
        accepted = await nas.fire("job-7", job.next)
        nas.faults.claims = {"aud": "agent:other"}
        refused = await nas.fire("job-7", job.next)
        assert (accepted.status, refused.status) == (202, 401)
        await example["scheduler"].drain(timeout_s=5)
        await example["nas"].aclose()

    asyncio.run(scenario())
    assert nas.arms == {"job-7": datetime_of(due_us + HOUR_US)}
    assert reader.ran == ["job-7"]


def test_the_example_of_a_provider_runs(reader: Reader) -> None:
    """With what a host has, as the page lists it: a provider is chosen, and takes a fire."""
    names = asyncio.run(reader.follow(DOCS / "provider.md"))
    assert names["provider"].name == "chronos"
    assert isinstance(names["verifier"], FireVerifier)
    assert names["answer"]("job-7", 0) == 200


AGENT = DOCS / "examples" / "agent.py"


def test_the_example_of_an_agent_runs_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    """A reader starts it, sees jobs fire, starts it again, and again with another schedule."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, "PORT": str(port), "PYTHONPATH": str(ROOT)}
    faster = tmp_path / "faster.py"
    faster.write_text(AGENT.read_text(encoding="utf-8").replace("every 5s", "every 1s"), encoding="utf-8")
    for example, told in (AGENT, "created"), (AGENT, "already so"), (faster, "edited"):
        command = [sys.executable, str(example)]
        agent = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            assert agent.stdout is not None
            said = list(itertools.takewhile(lambda line: "202 accepted" not in line, agent.stdout))
            agent.send_signal(signal.SIGINT)
            rest, _ = agent.communicate(timeout=30)
        finally:
            agent.kill()
            agent.wait()
        assert f"agent: tick: {told}\n" in said
        assert any(line.startswith(("agent: tick of", "agent: report of")) for line in said)
        assert "Traceback" not in rest
        assert agent.returncode == 0


def test_the_example_of_an_agent_says_in_one_line_that_it_cannot_serve(tmp_path: Path) -> None:
    """A port that is taken, or is none, is told before anything is stored."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for port in str(taken.getsockname()[1]), "abc", "99999":
            environment = {**os.environ, "PORT": port, "PYTHONPATH": str(ROOT)}
            command = [sys.executable, str(AGENT)]
            agent = subprocess.run(
                command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            assert (agent.returncode, agent.stdout) == (1, "")
            assert re.fullmatch(rf"cannot serve at 127\.0\.0\.1:{port}; .*\n", agent.stderr)
    assert not list(tmp_path.iterdir())


def test_the_example_of_how_jobs_stand_tells_of_each_kind_of_trouble(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An overdue job, refused fires, and a change that cannot be meant, by its kind of error."""
    example = runpy.run_path(str(DOCS / "examples" / "standing.py"))
    lines: list[str] = example["hours"](Promises())
    assert [line.partition(":")[0] for line in lines[:4]] == [
        "done",
        "mend the schedule",
        "mend the data",
        "mend the call",
    ]
    assert lines[4].startswith("report: overdue since 2026-01-01T01:00:00+00:00: 4 fires were refused")
    assert "report: armed, due 2026-01-01 03:00:00+00:00" in lines
    assert lines[-1] == "02:00:00 fire report: accepted"
    assert capsys.readouterr().out.splitlines() == [
        "the report for ops of 01:00",
        "the report for ops of 02:00",
    ]


def test_each_error_and_all_of_the_nas_for_tests_is_used_in_an_example() -> None:
    """The examples are type-checked: so is each of these names, as an integrator uses it."""
    used = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "examples").glob("*.py"))
    names = {*chronos.testing.__all__, "JobSpec", "Unreadable"}
    names |= {
        "DataError",
        "LocalMessageError",
        "MessageError",
        "NotSettled",
        "RemoteMessageError",
        "SettingsError",
    }
    assert {name for name in names if not re.search(rf"\b{name}\b", used)} == set()


def test_path_of_a_fire_names_what_there_is() -> None:
    """In its order, and with no more than twenty names in the table."""
    page = (DOCS / "path-of-a-fire.md").read_text(encoding="utf-8")
    table, _, rest = page.partition("Who performs")
    named = re.findall(r"`((?:chronos|simulator)[.\w]+)`", table)
    assert len(named) == len(set(named)) <= 20
    for name in (*named, *re.findall(r"`((?:chronos|simulator)[.\w]+)`", rest)):
        module, _, member = name.rpartition(".")
        assert hasattr(importlib.import_module(module), member), name
