"""A fleet under other terms: always on, scaled to zero, other idle time-outs and boot times."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from chronos.jobs.instants import MINUTE_US, SECOND_US
from chronos.values import evolve
from simulator.__main__ import main
from simulator.fleet import load_shipped, path
from simulator.scenario import Plan, simulate
from simulator.whatif import (
    ALWAYS_ON,
    OWN_TICKER,
    SCALE_TO_ZERO,
    Answer,
    Group,
    Prices,
    Row,
    answer,
    variants,
)
from tests.processes import group as processes_of
from tests.processes import in_shell, simulator, wait_for_workers

FLEET, DAYS = "fleet-12", 3
FILE = str(path(FLEET))
IDLE_US, BOOT_US = (MINUTE_US, 90 * MINUTE_US), (2 * SECOND_US, 90 * SECOND_US)
PRICES = Prices(hour=Decimal("0.05"), wake=Decimal("0.002"), call=Decimal("0.0001"))
PLAN = Plan(
    scenario="what-if",
    fleet=load_shipped(FLEET),
    days=DAYS,
    faults="none",
    nas="hardened",
    agent="chronos",
    machines=1,
)


@pytest.fixture(scope="module")
def found() -> Answer:
    """Return what came of all variants of a small fleet, of two seeds."""
    return answer(PLAN, variants(PLAN, idle_us=IDLE_US, boot_us=BOOT_US), range(4, 6), PRICES)


def row_of(found: Answer, group: Group, name: str) -> Row:
    return next(row for row in found.group(group) if row.variant.name == name)


# --- the figures ------------------------------------------------------------------------------


def test_one_thing_at_a_time_differs_from_the_plan(found: Answer) -> None:
    """The curves begin with the plan as it is given, and that of idleness ends with always on."""
    names = {group: [row.variant.name for row in found.group(group)] for group in Group}
    assert names[Group.COMPARED] == [SCALE_TO_ZERO, ALWAYS_ON, OWN_TICKER]
    assert names[Group.IDLE] == ["15s-30s", "60s", "1h30m", "never"]
    assert names[Group.BOOT] == ["1.5s-8.5s", "2s", "90s"]
    for group in Group:
        assert found.group(group)[0].variant.plan == PLAN
    for row in found.rows:
        asked = row.variant.plan.conditions
        assert (asked.idle_us is not None or asked.stays_up) + (asked.boot_us is not None) <= 1


def test_time_of_the_plan_is_a_point_of_its_curve() -> None:
    """In its place, and once."""
    plan = evolve(PLAN, conditions=evolve(PLAN.conditions, idle_us=MINUTE_US, boot_us=9 * SECOND_US))
    made = variants(plan, idle_us=IDLE_US, boot_us=BOOT_US)
    assert [each.name for each in made if each.group is Group.IDLE] == ["60s", "1h30m", "never"]
    boots = [each for each in made if each.group is Group.BOOT]
    assert [each.name for each in boots] == ["2s", "9s", "90s"]
    assert boots[1].plan == plan
    assert all(each.plan.conditions.idle_us == MINUTE_US for each in boots)


def test_figures_are_those_of_the_simulations(found: Answer) -> None:
    """Of each variant, summed over its seeds."""
    for row in found.rows:
        summaries = [simulate(row.variant.plan, seed) for seed in found.seeds]
        figures = row.figures
        assert figures.wakes == sum(each.wakes for each in summaries)
        assert figures.up_us == sum(each.calendar_boots_us + each.calendar_up_us for each in summaries)
        assert figures.calls["fire"] == sum(each.fires for each in summaries)
        for name in ("provision", "cancel", "list"):
            assert figures.calls[name] == sum(each.nas_calls[name] for each in summaries)
        assert figures.runs["completed"] == sum(each.runs["completed"] for each in summaries)
        for name, (late_ms, boot_ms) in figures.lateness_ms.items():
            assert late_ms == max(each.lateness_ms[name] for each in summaries)
            assert 0 <= boot_ms <= late_ms
        assert figures.verdict == "ok"


def test_machine_that_is_always_on_boots_when_it_is_deployed_and_no_more(found: Answer) -> None:
    """It is up for all of the calendar, and nothing waits for a boot."""
    for name in (ALWAYS_ON, OWN_TICKER):
        figures = row_of(found, Group.COMPARED, name).figures
        assert figures.wakes == figures.seeds == 2
        assert figures.up_us == pytest.approx(figures.calendar_us, abs=10)
        assert all(not boot_ms for _, boot_ms in figures.lateness_ms.values())
    assert row_of(found, Group.IDLE, "never").figures == row_of(found, Group.COMPARED, ALWAYS_ON).figures


def test_agent_that_fires_its_jobs_itself_asks_nas_nothing(found: Answer) -> None:
    """The runs are the same, and none is late, since its machine has long booted."""
    by_nas, by_itself = (row_of(found, Group.COMPARED, name).figures for name in (ALWAYS_ON, OWN_TICKER))
    assert not any(by_itself.calls.values())
    assert by_itself.runs == by_nas.runs
    assert by_itself.runs["completed"] > 50
    assert by_itself.lateness_ms["max"][0] == 0 < by_nas.lateness_ms["p50"][0]


@pytest.mark.parametrize("machines", [1, 2])
def test_agent_that_fires_its_jobs_itself_keeps_every_property(machines: int) -> None:
    """Though everything goes wrong: what its machine was down for is caught up or missed, and told."""
    ticking = evolve(PLAN, agent="ticker", faults="heavy", machines=machines, fleet=load_shipped("fleet-06"))
    for seed in range(4 // machines):
        summary = simulate(ticking, seed)
        assert summary.verdict == "ok", summary.violations[:2]
        assert summary.fires == 0


def test_who_may_stand_idle_for_longer_is_up_for_longer_and_woken_less(found: Answer) -> None:
    """The wakes of a shorter time-out are those of the longer one, and more."""
    rows = [row.figures for row in found.group(Group.IDLE)]
    assert [each.up_us for each in rows] == sorted(each.up_us for each in rows)
    assert [each.wakes for each in rows] == sorted((each.wakes for each in rows), reverse=True)
    assert all(each.runs == rows[0].runs for each in rows)


def test_longer_boot_makes_later_runs(found: Answer) -> None:
    """By as much; and a boot that outlasts a relay is called for again."""
    quick, slow = (row_of(found, Group.BOOT, name).figures for name in ("2s", "90s"))
    assert slow.lateness_ms["p50"][0] - quick.lateness_ms["p50"][0] == pytest.approx(88_000, abs=500)
    assert slow.lateness_ms["p50"][1] == 90_000
    assert slow.calls["fire"] > quick.calls["fire"]
    assert (
        0 <= slow.wakes * 90 * SECOND_US - slow.boots_us <= 2 * 90 * SECOND_US
    )  # the calendar ends in a boot


def test_cost_is_what_is_paid_for_each_of_it(found: Answer) -> None:
    """The mean of the seeds; what has no price costs nothing."""
    figures = row_of(found, Group.COMPARED, SCALE_TO_ZERO).figures
    hours = Decimal(figures.up_us) / 3_600_000_000
    whole = hours * Decimal("0.05") + figures.wakes * Decimal("0.002")
    whole += sum(figures.calls.values()) * Decimal("0.0001")
    assert abs(PRICES.cost(figures) - whole / 2) < Decimal("1e-15")
    assert Prices(wake=Decimal(3)).cost(figures) == Decimal(3 * figures.wakes) / 2
    assert Prices().cost(figures) == 0
    assert not Prices().are_given
    assert Prices(call=Decimal(0)).are_given


# --- the command ------------------------------------------------------------------------------

QUICK = ("whatif", FILE, "--days", "2", "--idle-times", "5m", "--boot-times", "30s")


def test_terminal_compares_and_draws_the_curves(capsys: pytest.CaptureFixture[str]) -> None:
    """Without prices nothing is told of costs; with one, the others count as nothing, and that is said."""
    assert main(QUICK) == 0
    plain = capsys.readouterr().out
    assert "cost" not in plain
    assert "of the 2 days simulated" in plain
    assert "Of what was simulated, idle 15s-30s is up least: " in plain
    assert main((*QUICK, "--price-hour", "0.05", "--price-call", "0")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(
        line.startswith("prices     0.05 for an hour up, 0 for a call of NAS; no price was") for line in lines
    )
    compared = next(line.split() for line in lines if line.startswith("  cost "))
    assert compared[2:] == ["2.400", "2.400"]
    assert any(line.startswith("  15s-30s*") for line in lines)
    assert any("costs least" in line and "always on costs 2.400" in line for line in lines)
    assert max(map(len, lines)) <= 100


def test_json_has_all_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the standard input to the output, as to a file; of several seeds, means."""
    assert main((*QUICK, "--seeds", "2", "--price-wake", "0.5", "--json", str(tmp_path / "a.json"))) == 0
    told = capsys.readouterr().out
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["prices"] == {"hour": None, "wake": 0.5, "call": None}
    assert (found["days"], found["seed"], found["seeds"]) == (2, 0, 2)
    assert [row["name"] for row in found["idle"]] == ["15s-30s", "5m", "never"]
    assert [row["boot_seconds"] for row in found["boot"]] == [None, 30]
    first = found["compared"][0]
    assert first == found["idle"][0] | {"name": SCALE_TO_ZERO}
    assert first["cost"] == pytest.approx(first["wakes"] / 2)
    assert all(sentence.split(";")[0] in told.replace("\n", " ") for sentence in found["said"])
    done = in_shell(f"{' '.join(QUICK)} --seeds 2 --price-wake 0.5 --json - < {FILE}".replace(FILE, "-", 1))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["compared"] == found["compared"]


REFUSED = {
    "": ["FILE"],
    "no-such.json": ["no-such.json"],
    "{file} --dayz 3": ["'--dayz'", "did you mean --days?"],
    "{file} --days 0": ["--days", "'0'"],
    "{file} --seeds 0": ["--seeds", "'0'"],
    "{file} --idle never": ["--idle never", "always on is simulated anyway"],
    "{file} --boot stuck": ["--boot stuck", "expected a time"],
    "{file} --idle 5m,15m": ["--idle", "'5m,15m'"],
    "{file} --boot 5s,9s": ["--boot", "'5s,9s'"],
    "{file} --idle-times never": ["--idle-times", "expected a time such as", "'never'"],
    "{file} --idle-times 5m,": ["--idle-times", "''"],
    "{file} --idle-times 25h": ["24h at most"],
    "{file} --boot-times 2h": ["--boot-times", "1h at most"],
    "{file} --boot-times " + ",".join(["1s"] * 21): ["20 times at most, got 21"],
    "{file} --price-hour -1": ["--price-hour"],
    "{file} --price-hour free": ["--price-hour", "expected a price such as 0.05", "'free'"],
    "{file} --price-wake 1e9": ["--price-wake", "'1e9'"],
    "{file} --price-call 0,05": ["--price-call", "'0,05'"],
    "{file} --wire": ["expected no --wire"],
    "{file} --agent ticker": ["--agent ticker", "never sleeps"],
    "{file} --faults hevy": ["'hevy'", "did you mean heavy?"],
    "{file} --html -": ["--html -", "expected a file"],
    "{file} --html no/such/x.html": ["--html", "there is no folder"],
    "{file} --json {file}": ["--json", "this is the jobs file"],
    "{file} --json x.html --html x.html": ["--html x.html", "--json"],
    "{file} quiet-month": ["'quiet-month'", "too many"],
}


@pytest.mark.parametrize("options", REFUSED)
def test_what_makes_no_sense_is_refused_in_one_line(
    options: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line names the option and the value, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    assert main(["whatif", *(word.format(file=FILE) for word in options.split())]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    for words in REFUSED[options]:
        assert words in told.err, told.err
    assert not list(tmp_path.iterdir())


def test_search_has_no_world_without_nas(capsys: pytest.CaptureFixture[str]) -> None:
    """The ticker is refused in one line."""
    assert main(("check", "--agent", "ticker")) == 2
    assert "--agent ticker" in capsys.readouterr().err


def test_violation_of_a_variant_decides_the_status(capsys: pytest.CaptureFixture[str]) -> None:
    """The deliberately broken agent is caught, and is not compared with the production agent's ticker."""
    assert main((*QUICK, "--agent", "naive", "--faults", "heavy", "--days", "4")) == 1
    told = capsys.readouterr().out
    assert "violated" in told
    assert OWN_TICKER not in told


def test_fleet_without_a_job_is_simulated_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing ran, and nothing is said of its lateness."""
    file = tmp_path / "none.json"
    file.write_text('{"jobs": [], "updated_at": "2026-06-25T09:00:00+02:00"}')
    assert main(("whatif", str(file), "--days", "1", "--price-wake", "1")) == 0
    told = capsys.readouterr().out
    assert "costs least: 1.00" in told
    assert "half of what ran" not in told


def test_interruption_leaves_neither_a_file_nor_a_worker(tmp_path: Path) -> None:
    """One line tells of it."""
    target = tmp_path / "page.html"
    running = simulator(
        "whatif", str(path("fleet-01")), "--days", "300", "--html", str(target), "--json", f"{target}.json"
    )
    wait_for_workers(running.pid)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)
    assert running.returncode == 130
    assert (out, err.count("\n")) == ("", 1)
    assert not list(tmp_path.iterdir())
    assert not processes_of(running.pid)


# --- the page ---------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Yield a browser."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the page is opened by playwright")
    if CHROMIUM is None and "CI" not in os.environ:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a page of a file whose name a page must not take for its own text."""
    folder = tmp_path_factory.mktemp("page")
    jobs = folder / "<b>jobs.json"
    shutil.copy(FILE, jobs)
    asked = ("--price-hour", "0.05", "--html", str(folder / "page.html"))
    assert main(("whatif", str(jobs), *QUICK[2:], *asked)) == 0
    return folder / "page.html"


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_page_shows_the_curves_and_their_figures(
    browser: Any, page_file: Path, width: int, scheme: str
) -> None:
    """It needs no network, fits a telephone, and reads by pointer, keyboard and table."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked: list[str] = []
    trouble: list[str] = []
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.goto(f"file://{page_file}")
    assert "<b>jobs.json" in page.inner_text("#title")
    assert "costs least" in page.inner_text("#said")
    assert page.locator("#compared tbody tr").count() > 15
    assert [page.locator(f"#{group} tbody tr").count() for group in ("idle", "boot")] == [3, 2]
    assert page.locator("svg").count() == 4
    assert page.locator("#idle-charts circle").count() == 3 + 2 * 3
    column = page.locator("#idle-charts .column").nth(1)
    column.focus()
    cells = page.locator("#idle tbody tr").nth(1).locator("td").all_inner_texts()
    read = page.inner_text("#idle-charts .read >> nth=0")
    assert read.startswith(f"{cells[0]}: up {cells[1]}, wakes {cells[2]}, ")
    assert read.endswith(f"cost {cells[-1]}")
    page.locator("#boot-charts .column").nth(0).hover()
    assert "(as given)" in page.inner_text("#boot-charts .read >> nth=0")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 29)"
    assert dark is (scheme == "dark")
    assert (len(asked), trouble) == (1, [])
    context.close()
