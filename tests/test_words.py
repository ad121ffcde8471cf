"""What the project's text does not say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Who sells calls at a time. Which of them NAS uses is its own matter: the agent, the simulator and
# the documents know an external scheduler and its properties, and no name.
VENDORS = (
    "qstash",
    "upstash",
    "eventbridge",
    "cloudwatch",
    "aws",
    "amazon",
    "gcp",
    "google cloud",
    "cloud scheduler",
    "cloud tasks",
    "azure",
    "logic apps",
    "cloudflare",
    "vercel",
    "netlify",
    "heroku",
    "fly.io",
    "render.com",
    "railway.app",
    "inngest",
    "trigger.dev",
    "temporal.io",
    "temporal cloud",
    "cron-job.org",
    "cronjob.org",
    "easycron",
    "cronitor",
    "cronhub",
    "cronhooks",
    "fastcron",
    "setcronjob",
    "zeplo",
    "mergent",
    "posthook",
    "quirrel",
    "svix",
    "hookdeck",
    "pipedream",
    "zapier",
    "ifttt",
    "n8n",
    "supabase",
    "convex.dev",
    "runhooks",
    "serverless cloud",
    "ironworker",
    "iron.io",
)
_WORDS = "|".join(re.escape(name).replace(r"\ ", r"[\s_-]*") for name in VENDORS)
_NAMED = re.compile(rf"(?<![a-z0-9])({_WORDS})(?![a-z0-9])", re.IGNORECASE)
TEXTS = sorted(
    path
    for folder in ("chronos", "simulator", "docs")
    for path in (ROOT / folder).rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_vendor_of_external_schedulers_is_named(path: Path) -> None:
    """Neither in what a file says nor in what it is called."""
    text = f"{path.relative_to(ROOT)}\n{path.read_bytes().decode('utf-8', 'replace')}"
    found = _NAMED.search(text)
    assert found is None, f"{path.relative_to(ROOT)} names {found[0]!r}" if found else ""


def test_a_vendor_would_be_found() -> None:
    """However it is spelled, and not inside of another word."""
    assert _NAMED.search("delivered by QStash.")
    assert _NAMED.search("an AWS/queue")
    assert not _NAMED.search("it draws laws of paws")


def test_time_is_frozen_only_where_a_shell_reads_the_real_clock() -> None:
    """Everything else takes the instant as an argument, or a clock, which freezes nothing else."""
    tests = [path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    frozen = {path.stem for path in tests if "import freeze_time" in path.read_text(encoding="utf-8")}
    assert frozen == {"test_preview", "test_tokens", "test_verify"}
