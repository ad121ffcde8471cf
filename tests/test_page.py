"""The page of a simulation, as somebody opens it: in a headless browser, without a network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulator.__main__ import main

playwright = pytest.importorskip("playwright.sync_api", reason="the page is opened by playwright")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None and "CI" not in os.environ:
    pytest.skip("no Chromium is installed", allow_module_level=True)

PAUSED = "one occurrence, and somebody pauses the job"
PAGES = {
    "replicas": ("run", "replicas", "--days", "20"),
    "naive": ("run", "naive-agent", "--days", "6"),
    "quiet": ("run", "quiet-month", "--days", "5"),
    "asked": ("run", "quiet-month", "--days", "1", "--faults", "light", "--boot", "90s"),
    "shrunk": ("shrink", "naive-agent", "--days", "6"),
    "cases": ("check", "--agent", "naive", "--limit", "2000", "--case", PAUSED),
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the file of each page."""
    folder = tmp_path_factory.mktemp("pages")
    for name, command in PAGES.items():
        assert main((*command, "--html", str(folder / f"{name}.html"))) in (0, 1)
    return {name: folder / f"{name}.html" for name in PAGES}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Yield a browser."""
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


class Reader:
    """Somebody who reads a page.

    Attributes:
        page: the page as the browser has it.
        asked: what the page has asked the network for.
        trouble: errors, in words.
    """

    def __init__(self, browser: Any, address: str, *, width: int = 1280, scheme: str = "light") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.trouble: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.goto(address)
        self.settle()

    def settle(self) -> None:
        """Wait until what was asked for is drawn, and remembered in the address."""
        self.page.wait_for_timeout(300)
        assert not self.trouble

    def text(self, selector: str) -> str:
        """Return what is shown there."""
        return str(self.page.inner_text(selector))

    def colours(self, canvas: str) -> int:
        """Return how many colours are in a picture."""
        script = """id => { const c = document.getElementById(id);
            const all = new Uint32Array(c.getContext("2d").getImageData(0, 0, c.width, c.height).data.buffer);
            return new Set(all).size; }"""
        return int(self.page.evaluate(script, canvas))


@pytest.fixture
def read(browser: Any, pages: dict[str, Path]) -> Iterator[Any]:
    """Return what opens a page."""
    readers: list[Reader] = []

    def opened(name: str, fragment: str = "", **options: Any) -> Reader:
        readers.append(Reader(browser, f"file://{pages[name]}{fragment}", **options))
        return readers[-1]

    yield opened
    for reader in readers:
        reader.context.close()


def test_page_needs_nothing_but_itself(read: Any) -> None:
    """It asks the network for nothing, and shows what the summary tells."""
    reader = read("replicas")
    assert len(reader.asked) == 1
    assert reader.text("#title") == "replicas: 14 jobs of fleet-06, seed 0"
    assert reader.text("#verdict") == "ok"
    assert reader.page.locator("#jobs tbody tr").count() == 14
    assert reader.page.locator("#lateness tbody tr").count() == 5
    assert reader.colours("overview") > 5
    assert reader.colours("space") > 5


def test_page_says_where_to_look_first(read: Any) -> None:
    """A violation comes before what was lost, and each opens its story."""
    reader = read("naive")
    first = reader.page.locator("#first button").first
    assert "NO-LOST-REARM" in first.inner_text()
    first.click()
    reader.settle()
    story = reader.text("#story")
    assert "NO-LOST-REARM" in story
    assert "the external scheduler calls for" in story
    assert reader.page.locator("#story li.on").count() == 1
    assert "line=" in reader.page.url


def test_page_of_the_least_opens_at_its_violation(read: Any) -> None:
    """It shows the last of its lines with their words, and the story of the violation: a glance is enough."""
    reader = read("shrunk")
    assert "NO-LOST-REARM" in reader.text("#story li.on")
    begins, ends = reader.page.evaluate("view")
    violated = reader.page.evaluate("at[pick]")
    assert begins < violated < ends
    assert ends - begins < reader.page.evaluate("END")
    assert reader.colours("space") > 5


def test_page_of_a_quiet_world_says_so(read: Any) -> None:
    """There is nothing to look at first."""
    assert read("quiet").text("#first") == "Every occurrence completed; no property was violated."


def test_keys_step_from_line_to_line(read: Any) -> None:
    """Forward, back, to the cause, and to the next mark."""
    reader = read("naive")
    reader.page.locator("#first button").first.click()
    reader.settle()
    told = reader.text("#story li.on")
    reader.page.keyboard.press("ArrowRight")
    after = reader.text("#story li.on")
    reader.page.keyboard.press("ArrowLeft")
    assert after != told == reader.text("#story li.on")
    reader.page.keyboard.press("c")
    assert reader.text("#story li.on") not in (told, after)
    reader.page.keyboard.press("m")
    reader.settle()
    assert reader.text("#story li.on") == told  # the violation comes next again


def test_zoom_shows_less_time_and_more_of_it(read: Any) -> None:
    """By keys, by buttons, by the wheel; and whole again."""
    reader = read("replicas")
    ranges = [reader.text("#range")]
    for act in (
        lambda: reader.page.keyboard.press("+"),
        lambda: reader.page.click("[data-do=in]"),
        lambda: (reader.page.hover("#space"), reader.page.mouse.wheel(0, -400)),
    ):
        act()
        reader.settle()
        ranges.append(reader.text("#range"))
    assert len(set(ranges)) == 4
    reader.page.keyboard.press("0")
    reader.settle()
    assert reader.text("#range") == ranges[0]


def test_one_job_alone_is_shown(read: Any) -> None:
    """Stepping passes over the others."""
    reader = read("replicas")
    reader.page.select_option("#job", label="job-07")
    for _ in range(12):
        reader.page.keyboard.press("ArrowRight")
        told = reader.text("#story li.on")
        assert "job-" not in told or "job-07" in told
    assert "job=job-07" in reader.page.url or reader.settle() or "job=job-07" in reader.page.url


def test_link_leads_to_its_moment(read: Any) -> None:
    """Whoever opens it sees what was seen by whoever sent it."""
    reader = read("naive")
    reader.page.locator("#first button").last.click()
    reader.settle()
    other = read("naive", "#" + reader.page.url.partition("#")[2])
    assert other.text("#range") == reader.text("#range")
    assert other.text("#story") == reader.text("#story")
    assert other.page.input_value("#job") == reader.page.input_value("#job")


def test_page_fits_a_telephone(read: Any) -> None:
    """Nothing is wider than the screen but what scrolls by itself."""
    reader = read("replicas", width=390)
    assert reader.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert reader.colours("space") > 5


def test_page_is_dark_where_that_is_wanted(read: Any) -> None:
    """Its pictures, too."""
    script = "getComputedStyle(document.body).backgroundColor"
    assert read("quiet").page.evaluate(script) != read("quiet", scheme="dark").page.evaluate(script)


def test_click_on_a_mark_opens_its_story(read: Any) -> None:
    """Where it is drawn."""
    reader = read("naive")
    reader.page.locator("#first button").first.click()
    reader.settle()
    told = reader.text("#story li.on")
    reader.page.keyboard.press("ArrowLeft")
    box = reader.page.locator("#space").bounding_box()
    reader.page.mouse.click(box["x"] + 92 + (box["width"] - 98) / 2, box["y"] + 78)
    assert reader.text("#story li.on") == told


def test_page_says_what_was_asked_for_and_what_could_go_wrong(read: Any) -> None:
    """As the summary does."""
    about = read("asked").text("#about")
    assert "asked for: " in about
    assert "faults switched on, and how likely each is: " in about
    assert "asked for" not in read("quiet").text("#about")


def test_counterexample_is_shown_at_once(read: Any) -> None:
    """What is violated, and its steps with what led to it; nothing that is of times, or of many jobs."""
    reader = read("cases")
    assert reader.text("#title") == f"NO-ORPHAN: {PAUSED}"
    assert reader.text("#verdict").startswith("violated: the job is paused")
    assert "check --explore --case" in reader.text("#about")
    steps = reader.page.locator("#steps > li > b").all_inner_texts()
    assert steps == [
        "at the start",
        "1. somebody asks process 0: pause",
        "2. the cancel (revision 1) is lost",
    ]
    assert "NO-ORPHAN" in reader.text("#steps li.on")
    assert (
        "the cancel (revision 1), lost on its way" in reader.page.locator("#steps .why").all_inner_texts()[-3]
    )
    assert reader.colours("space") > 5
    shown = reader.page.inner_text("body")
    assert not any(word in shown for word in ("1970", "UTC", "Lateness", "All of it", "Job by job"))


def test_other_counterexample_is_chosen(read: Any) -> None:
    """By the list, by a link; and keys step through its lines."""
    reader = read("cases")
    assert reader.page.locator("#cases option").count() == 2
    reader.page.select_option("#cases", index=1)
    reader.settle()
    assert reader.text("#title") == f"NO-LOST-REARM: {PAUSED}"
    reader.page.keyboard.press("ArrowLeft")
    told = reader.text("#steps li.on")
    assert "NO-LOST-REARM" not in told
    reader.settle()
    other = read("cases", "#" + reader.page.url.partition("#")[2])
    assert other.text("#title") == reader.text("#title")
    assert other.text("#steps li.on") == told


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_counterexample_fits_a_telephone(read: Any, scheme: str) -> None:
    """It shows the end first, which is what one looks for."""
    reader = read("cases", "#case=2", width=390, scheme=scheme)
    assert reader.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert reader.colours("space") > 5
