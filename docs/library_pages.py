"""What the pages say of the library: its errors, and the numbers it goes by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from writing import attributes_of, code, prose, table

from chronos import errors, stores
from chronos.agent import telemetry
from chronos.jobs import data, instants, job, policy
from chronos.protocol import clocks, follow_ups
from chronos.protocol import flow as flows
from chronos.stores import rewrite
from chronos.testing import Faults

_ROOTS = (errors.ChronosError, flows.ProtocolError)


def errors_page() -> str:
    """Return the page with every exception."""
    parts = [
        "# Errors\n",
        "Every error says what was found and what was expected. Where an effect is at stake, `definite` says"
        " whether it certainly did not happen; when it is false, it may have happened.\n",
        "## The tree\n",
        *(line for root in _ROOTS for line in _tree(root, 0)),
        "\n## Each of them\n",
    ]
    for root in _ROOTS:
        parts += _describe(root)
    return "\n".join(parts)


def _subclasses(cls: type[Exception]) -> list[type[Exception]]:
    return [each for each in cls.__subclasses__() if each.__module__.startswith("chronos.")]


def _tree(cls: type[Exception], depth: int) -> Iterator[str]:
    also = [base for base in cls.__bases__ if base.__module__ == "builtins" and base is not Exception]
    of = "".join(f" (also a `{base.__name__}`)" for base in also)
    first = prose(cls).partition("\n\n")[0].replace("\n", " ")
    yield f"{'    ' * depth}- [`{cls.__name__}`](#{cls.__name__.lower()}){of}: {first}"
    for each in _subclasses(cls):
        yield from _tree(each, depth + 1)


def _describe(cls: type[Exception]) -> Iterator[str]:
    yield f"### {cls.__name__}\n"
    yield f"From `{cls.__module__}`. {prose(cls)}\n"
    if attributes := attributes_of(cls):
        yield table(["Attribute", "Meaning"], ([code(name), text] for name, text in attributes.items()))
    for each in _subclasses(cls):
        yield from _describe(each)


def _span(duration_us: int) -> str:
    """Return a duration in the largest unit that keeps it whole."""
    for unit_us, name in ((instants.HOUR_US, "h"), (instants.MINUTE_US, "min")):
        if duration_us % unit_us == 0:
            return f"{duration_us // unit_us} {name}"
    return f"{duration_us // instants.SECOND_US} s"


def _seconds(duration_us: int) -> str:
    return f"{duration_us // instants.SECOND_US} s"


def _follow_ups() -> str:
    *most, last = (str(delay_us // instants.SECOND_US) for delay_us in follow_ups.FOLLOW_UP_DELAYS_US)
    return f"{', '.join(most)} and {last} s"


def _instruments() -> str:
    """Return the table of instruments that the module describes."""
    rows = [line for line in (telemetry.__doc__ or "").splitlines() if line.startswith("|")]
    return "\n".join(rows)


def _testing_faults() -> str:
    """Return the table of what a NAS for tests can be told to do wrong."""
    return table(
        ["`nas.faults.`…", "Meaning"],
        ([code(name), text] for name, text in attributes_of(Faults).items()),
    )


PARTS: Mapping[str, Callable[[], str]] = {
    "lease": lambda: _seconds(job.LEASE_US),
    "renew_every": lambda: _seconds(job.RENEW_EVERY_US),
    "clock_allowance": lambda: _seconds(job.CLOCK_ALLOWANCE_US),
    "max_attempts": lambda: str(policy.MAX_ATTEMPTS),
    "max_catch_up": lambda: str(policy.MAX_CATCH_UP),
    "max_data": lambda: f"{data.MAX_DATA_BYTES // 1024} KiB",
    "max_data_depth": lambda: str(data.MAX_DATA_DEPTH),
    "max_in_flight": lambda: str(policy.MAX_IN_FLIGHT),
    "mending": lambda: _span(flows.MENDING_US),
    "min_grace": lambda: _span(policy.MIN_GRACE_US),
    "max_grace": lambda: _span(policy.MAX_GRACE_US),
    "max_conflicts": lambda: str(flows.MAX_CONFLICTS),
    "recovery_margin": lambda: _seconds(clocks.CLOCK_MARGIN_US),
    "follow_ups": _follow_ups,
    "instruments": _instruments,
    "history_length": lambda: str(stores.HISTORY_LENGTH),
    "testing_faults": _testing_faults,
    "longest_reason": lambda: str(rewrite.LONGEST_REASON),
}
