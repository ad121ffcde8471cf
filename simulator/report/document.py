"""Summaries for programs: one JSON object for each simulation."""

from __future__ import annotations

from typing import Any

from chronos.jobs.instants import format_instant
from simulator.compare import Cost
from simulator.conditions import Conditions
from simulator.summary import Summary


def summary_object(scenario: str, seed: int, summary: Summary) -> dict[str, Any]:
    """Return what came of one simulation as plain values.

    Instants are ISO 8601 texts; durations carry their unit in their name.
    """
    return {
        "scenario": scenario,
        "seed": seed,
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
        "simulated_seconds": summary.simulated_seconds,
        "events": summary.events,
        "fires": summary.fires,
        "runs": summary.runs,
        "wakes": summary.wakes,
        "wakes_for_nothing": summary.wakes_for_nothing,
        "agent_up_seconds": summary.agent_up_seconds,
        "nas_calls": summary.nas_calls,
        "lateness_ms": summary.lateness_ms,
        "marks": summary.marks,
        "digest": summary.digest,
    }


def asked_object(conditions: Conditions, cost: Cost | None) -> dict[str, Any]:
    """Return what was asked for, in words, and where it was compared what it costs, as plain values."""
    told: dict[str, Any] = {"with": list(conditions.words())}
    return told if cost is None else {**told, "cost": cost.object()}
