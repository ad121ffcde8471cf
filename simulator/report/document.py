"""Summaries for programs: one JSON object for each simulation."""

from __future__ import annotations

from typing import Any

from msgspec.structs import asdict

from chronos.jobs.instants import format_instant
from simulator import faults
from simulator.compare import Cost
from simulator.conditions import Conditions
from simulator.ledger import Loss
from simulator.scenario import Plan
from simulator.summary import Summary


def summary_object(plan: Plan, seed: int, summary: Summary) -> dict[str, Any]:
    """Return what came of one simulation as plain values.

    Instants are ISO 8601 texts; durations carry their unit in their name.
    """
    return {
        "scenario": plan.scenario,
        "seed": seed,
        "switched_on": faults.switched_on(plan.weights(seed)),
        "verdict": summary.verdict,
        "violations": [
            {
                "property": violation.property,
                "job_id": violation.job_id,
                "at": format_instant(violation.at_us),
                "message": violation.message,
                "history": list(violation.history),
            }
            for violation in summary.violations
        ],
        "unsettled": list(summary.unsettled),
        "exceptions": [
            {"text": each.text, "count": each.count, "first": format_instant(each.first_us)}
            for each in summary.exceptions
        ],
        "simulated_seconds": summary.simulated_seconds,
        "events": summary.events,
        "fires": summary.fires,
        "runs": summary.runs,
        "wakes": summary.wakes,
        "wakes_for_nothing": summary.wakes_for_nothing,
        "agent_up_seconds": summary.agent_up_seconds,
        "nas_calls": summary.nas_calls,
        "lateness_ms": summary.lateness_ms,
        "jobs": [asdict(account) for account in summary.accounts],
        "losses": [_loss(loss) for loss in summary.losses],
        "marks": summary.marks,
        "digest": summary.digest,
    }


def asked_object(conditions: Conditions, cost: Cost | None) -> dict[str, Any]:
    """Return what was asked for, in words, and where it was compared what it costs, as plain values."""
    told: dict[str, Any] = {"with": list(conditions.words())}
    return told if cost is None else {**told, "cost": cost.object()}


def _loss(loss: Loss) -> dict[str, Any]:
    episode = loss.cause.episode
    return {
        "job_id": loss.job_id,
        "result": loss.result,
        "cause": loss.cause.name,
        "count": loss.count,
        "first": format_instant(loss.first_us),
        "last": format_instant(loss.last_us),
        "example": {
            "occurrence": format_instant(loss.example_us),
            "words": loss.cause.words,
            "episode": None
            if episode is None
            else {
                "name": episode.name,
                "from": format_instant(episode.from_us),
                "until": format_instant(episode.until_us),
            },
        },
    }
