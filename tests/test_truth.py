"""What the library tells its operators is true, and names the cause."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from chronos.agent.scheduler import Scheduler
from chronos.errors import StoreError
from chronos.fire.webhook import FireEndpoint
from chronos.jobs.instants import HOUR_US, MINUTE_US
from chronos.jobs.job import Verdict
from chronos.nas.client import AsyncNasClient, NasClient
from chronos.stores import JobStore, JsonFileStore, SqlStore
from tests.agents import T0, MakeWorld, Nas, at, every_hour, later, until
from tests.fires import World, fire_verifier, run, token

# --- How a job stands -------------------------------------------------------------------------


@pytest.mark.parametrize("armed_us", [0, -HOUR_US, HOUR_US, None], ids=["then", "before", "later", "not"])
def test_an_overdue_job_is_told_to_be_overdue(make_world: MakeWorld, armed_us: int | None) -> None:
    """Whatever NAS lists: nothing has come for it (incident V1)."""
    world = make_world(every_hour())
    if armed_us is not None:
        world.nas.arms["j"] = at(armed_us)
    world.now_us = T0 + 26 * HOUR_US
    (job,) = world.agent.status().jobs
    assert job.is_armed is False
    assert job.why.startswith("overdue since 2026-06-26T12:00:00+00:00: ")


def test_a_job_is_overdue_only_by_more_than_clocks_may_differ(make_world: MakeWorld) -> None:
    """Its fire may be on the way."""
    world = make_world(every_hour())
    world.nas.arms["j"] = at(0)
    world.now_us = T0 + MINUTE_US
    assert [each.why for each in world.agent.status().jobs] == ["armed"]
    world.now_us += 1
    assert [each.is_armed for each in world.agent.status().jobs] == [False]


def test_an_overdue_job_is_told_although_nas_cannot_say(make_world: MakeWorld) -> None:
    """The store alone shows it."""
    world = make_world(every_hour())
    world.nas.is_down = True
    world.now_us = T0 + HOUR_US
    (job,) = world.agent.status().jobs
    assert (job.is_armed, job.why) == (
        False,
        "overdue since 2026-06-26T12:00:00+00:00: NAS could not say what is armed",
    )


# --- Fires that were refused ------------------------------------------------------------------


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"aud": "agent:other"}, "Audience"),
    ({"iss": "https://other.example"}, "issuer"),
    ({"number": 2}, "signed"),
    ({"purpose": "other"}, "purpose"),
    ({"exp": 1}, "expired"),
]


@pytest.mark.parametrize(("wrong", "why"), WRONG, ids=[why for _, why in WRONG])
def test_fires_that_were_refused_are_told_with_their_reason(wrong: dict[str, Any], why: str) -> None:
    """How many, when the last one came and why; the caller learns nothing of it (incident V1)."""

    async def scenario() -> None:
        world = World(verifier=fire_verifier())
        for _ in range(3):
            assert (await world.ask(token=token(**wrong))).json() == {"error": "unauthorized"}
        refused = (await world.scheduler.status()).refused
        assert (refused.count, refused.last_us) == (3, T0)
        assert why in refused.why
        assert str(refused).startswith("3 fires were refused, the last at 2026-")

    run(scenario())


def test_an_overdue_job_names_the_refused_fires(make_world: MakeWorld) -> None:
    """An operator who looks at the job sees the cause."""
    world = make_world(every_hour())
    world.nas.arms["j"] = at(0)
    world.now_us = T0 + HOUR_US
    world.agent.scheduler.fire_was_refused("Audience doesn't match")
    (job,) = world.agent.status().jobs
    assert job.why == (
        "overdue since 2026-06-26T12:00:00+00:00: 1 fire was refused at 2026-06-26T13:00:00+00:00: "
        "Audience doesn't match"
    )


@pytest.mark.parametrize(
    "url",
    [
        "https://agent.example/api/cron/fire",
        "https://agent.example/x/API/cron/fire/",
        "https://agent.example//api//cron/fire?a=b",
        "https://agent.example/api/cron/fire#top",
    ],
)
@pytest.mark.parametrize("client", [NasClient, AsyncNasClient])
def test_a_callback_url_that_ends_in_the_path_of_fires_is_refused(client: Any, url: str) -> None:
    """NAS appends the path: each fire would be sent where nothing is served (incident V1)."""
    with pytest.raises(ValueError, match=r"callback_url is .* ends in /api/cron/fire, which NAS appends"):
        client("https://nas.example", token_provider=lambda _: "t", callback_url=url)


@pytest.mark.parametrize("url", ["https://agent.example/?a=b", "https://agent.example/a#b"])
def test_a_callback_url_with_a_query_is_refused(url: str) -> None:
    """A path that is appended to it would be none."""
    with pytest.raises(ValueError, match=r"callback_url is .* has a query or a fragment"):
        NasClient("https://nas.example", token_provider=lambda _: "t", callback_url=url)


@pytest.mark.parametrize("path", ["/api/cron/fire/api/cron/fire", "/x/api/cron/fire", "/api/cron/fire/"])
def test_a_fire_for_a_path_that_is_not_served_is_logged_once(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With the path that is; and it counts among the refused."""

    async def scenario() -> None:
        world = World()
        transport = httpx.ASGITransport(app=FireEndpoint(world.scheduler, fire_verifier()))
        async with httpx.AsyncClient(transport=transport, base_url="https://agent.example") as client:
            answers = [await client.post(path, json={}) for _ in range(3)]
            assert (await client.post("/favicon.ico")).status_code == 404
        assert {answer.status_code for answer in answers} == {404}
        assert (await world.scheduler.status()).refused.count == 3

    run(scenario())
    (said,) = [each.getMessage() for each in caplog.records if "callback URL" in each.getMessage()]
    assert repr(path) in said
    assert "'/api/cron/fire'" in said


# --- A run that failed ------------------------------------------------------------------------


class Stop(BaseException):
    """No `Exception`, as what ends a process."""


@pytest.mark.parametrize(
    "error", [ValueError("the disk is full"), Stop("enough"), ValueError("half: \ud800")]
)
def test_the_traceback_of_a_failed_run_is_logged(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    """Once, with the job and the attempt; the history keeps a line of it (incident V2)."""

    def deep_in_the_job(_: object) -> None:
        raise error

    async def deep_in_the_async_job(_: object) -> None:
        raise error

    for runner in (deep_in_the_job, deep_in_the_async_job):
        caplog.clear()
        world = make_world(every_hour(), runner=runner)
        assert world.agent.fire("j", T0).verdict is Verdict.ACCEPTED
        until(world.outcomes)
        world.quiet()
        text = "\n".join(logging.Formatter().format(each) for each in caplog.records)
        assert text.count("the run of j of 2026-06-26T12:00:00+00:00 failed, attempt 1") == 1
        assert f"in {runner.__name__}" in text
        text.encode()  # what any handler can write


# --- Why the store could not be moved ---------------------------------------------------------


def _missing(folder: Path) -> tuple[JobStore, str]:
    return JsonFileStore(folder / "jobs.json"), "there is no jobs file"


def _garbage(folder: Path) -> tuple[JobStore, str]:
    (folder / "jobs.json").write_text("{garbage", encoding="utf-8")
    return JsonFileStore(folder / "jobs.json"), "expected JSON"


def _no_database(folder: Path) -> tuple[JobStore, str]:
    path = folder / "jobs.sqlite"
    store = SqlStore.create(f"sqlite:///{path}")
    sqlite3.connect(path).execute("drop table chronos_jobs")
    return store, "chronos_jobs"


@pytest.mark.parametrize("broken", [_missing, _garbage, _no_database])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_who_asked_is_told_why_the_store_failed(
    tmp_path: Path, broken: Callable[[Path], tuple[JobStore, str]], caplog: pytest.LogCaptureFixture
) -> None:
    """The answer, the start, what is pending and the log have the cause."""
    caplog.set_level(logging.INFO)
    store, cause = broken(tmp_path)
    scheduler = Scheduler(store, Nas().client("threads"), print)
    answer = scheduler.pause("j")
    assert (answer.verdict, answer.settled) == (None, False)
    assert answer.reason.startswith("the job store could not be moved: ")
    assert cause in answer.reason
    started = scheduler.start()
    assert not started.settled
    assert cause in started.trouble
    assert any(cause in each.reason for each in scheduler.pending())
    said = [each.getMessage() for each in caplog.records]
    assert not any(each == "reconciled" for each in said)
    assert any(each.startswith("not reconciled: ") and cause in each for each in said)
    scheduler.drain(5)


def test_the_cause_is_one_line_of_bounded_length(make_world: MakeWorld) -> None:
    """It goes to logs and to people."""
    world = make_world(later())
    with world.failing_store(OSError("one\ntwo\x1b" + "x" * 5000), method="load"):
        reason = world.agent.pause("j").reason
    assert "OSError: one\\ntwo\\x1b" in reason
    assert reason.isprintable()
    assert len(reason) < 600


def test_the_caller_of_the_webhook_is_not_told_of_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of files and servers are for the agent's own people."""

    async def scenario() -> None:
        world = World()

        def fails(*_: object, **__: object) -> bool:
            raise StoreError("/secret/place is full", definite=True)

        monkeypatch.setattr(world.store, "swap", fails)
        answer = await world.ask()
        assert answer.status_code == 503
        assert "secret" not in answer.text

    run(scenario())


def test_a_change_that_nas_did_not_agree_to_names_the_cause(make_world: MakeWorld) -> None:
    """In the answer, and in what is pending."""
    world = make_world(later())
    world.nas.is_down = True
    assert "NAS answered 503" in world.agent.edit("j", schedule="every 2h").reason
    assert any("NAS answered 503" in each.reason for each in world.agent.pending())


def test_a_job_without_an_occurrence_left_is_not_told_to_run(make_world: MakeWorld) -> None:
    """As one whose end is past: nothing of it is in flight."""
    world = make_world(every_hour(next_us=None))
    assert [each.why for each in world.agent.status().jobs] == ["its schedule has no occurrence left"]
