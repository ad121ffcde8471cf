"""What may go wrong, as a tree of exceptions.

* ChronosError: everything that this library raises for its caller to handle.
    * JobsFileError: what a store holds cannot be what its author meant, and must be mended.
    * StoreError: the job store could not be read or written; says whether a write may have happened.
    * NasError: NAS did not do as it was asked; says whether the effect definitely did not happen.
        * NasRefused: NAS refuses the request; sending it again does not help.
            * InvalidClient: NAS refuses the agent's identity; an operator must act.
        * StaleRevision: NAS has seen a newer revision of the job; look into the store again.
        * NasUnavailable: NAS was not reached, or could not answer; ask again later.
    * TokenError: the token of a fire is not good.
    * ScheduleError: a schedule, a time or a policy cannot be what its author meant; also a `ValueError`.
    * DataError: what a job shall carry is no JSON value, or too large a one; also a `ValueError`.
    * MessageError: data that is not the message it should be; also a `ValueError`. Of these,
        * LocalMessageError: this side was about to send it, or was given an id that no message can carry;
        * RemoteMessageError: the other side sent it.
    * SettingsError: a configuration cannot be used as it is.
    * NotSettled: a provider's fire or change must be repeated.

An argument that is of another type than its own is a `TypeError`, and one that is out of its range a
`ValueError`, as everywhere in Python; both are raised by the call that was given it, and name the
argument, the value and the expectation. `chronos.protocol.flow.ProtocolError` stands apart as well:
it is a bug of a program that drives the protocol by hand.
"""

from __future__ import annotations

from typing import ClassVar

# Messages go to logs and status lines. Longer than any sensible value; a pasted document is cut.
_LONGEST_PART = 400


class ChronosError(Exception):
    """Everything that this library raises for its caller to handle."""


class JobsFileError(ChronosError):
    """What a store holds cannot be what its author meant, and must be mended; nothing was changed.

    The message is one line: `jobs.json: job job-03: schedule.expr: cron expression '61 * * * *': …`.

    Attributes:
        source: the file's name, as the caller gave it, or the name of a database's table.
        job: the id of the job, `#2` for the job at index 2 when it has none, or None when the
            problem is not within one job.
        field: the path of the field, such as `schedule.expr`; None when it is the whole.
        problem: what was found and what was expected.
    """

    def __init__(self, source: str, job: str | None, field: str | None, problem: str) -> None:
        super().__init__(source, job, field, problem)
        self.source = source
        self.job = job
        self.field = field
        self.problem = problem

    def __str__(self) -> str:
        parts = (self.source, f"job {self.job}" if self.job is not None else None, self.field, self.problem)
        return ": ".join(one_line(part) for part in parts if part is not None)


class StoreError(ChronosError):
    """The job store could not be read or written; says whether a write may have happened.

    Attributes:
        problem: what was tried, and what became of it.
        definite: whether the write definitely did not happen. When False, load the job and look.
    """

    def __init__(self, problem: str, definite: bool) -> None:
        super().__init__(problem, definite)
        self.problem = problem
        self.definite = definite

    def __str__(self) -> str:
        what = "nothing was written" if self.definite else "the write may have happened all the same"
        return f"{one_line(self.problem)}; {what}"


class NasError(ChronosError):
    """NAS did not do as it was asked; says whether the effect definitely did not happen.

    Attributes:
        problem: what NAS answered, or why it did not.
        definite: whether the effect definitely did not happen, by any of the sends of one call. When
            False, it may have.
        date_us: NAS's time when it last answered, epoch microseconds, UTC; None when it did not say.
    """

    def __init__(self, problem: str, *, definite: bool) -> None:
        super().__init__(problem)
        self.problem = problem
        self.definite = definite
        self.date_us: int | None = None

    def __str__(self) -> str:
        return one_line(self.problem)


class NasRefused(NasError):
    """NAS refuses the request; sending it again does not help.

    Nothing was done by the send that was refused; an earlier one of the same call, of which nobody
    knows what became, makes it not `definite`. The same goes for `StaleRevision`.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem, definite=True)


class InvalidClient(NasRefused):
    """NAS refuses the agent's identity; the message has the remedy, for the operator.

    A client that was told so raises it at every later call, without asking NAS, until its `reset`.

    Source: incident L4.
    """

    def __init__(self, answer: str = "invalid_client") -> None:
        super().__init__(
            f"NAS refuses this agent's identity ({answer}), so that none of its jobs can be armed; no"
            " retry mends that. Log the agent in again, then restart it: it arms its jobs when it starts"
        )


class StaleRevision(NasError):
    """NAS has seen a newer revision of the job; look into the store again.

    Attributes:
        revision: the newest that NAS has seen.
    """

    def __init__(self, revision: int) -> None:
        super().__init__(f"NAS has seen revision {revision} of this job, which is newer", definite=True)
        self.revision = revision


class NasUnavailable(NasError):
    """NAS was not reached, or could not answer; ask again later.

    Attributes:
        retry_after_s: for how long NAS asks not to be asked again, seconds, five minutes at most; None
            when it did not say. A client keeps to it: see `chronos.nas.client.NasClient.provision`.
    """

    def __init__(self, problem: str, *, definite: bool = False, retry_after_s: float | None = None) -> None:
        super().__init__(problem, definite=definite)
        self.retry_after_s = retry_after_s


class TokenError(ChronosError):
    """The token of a fire is not good.

    The message is for the agent's log and never for the caller of the webhook, whom it would help to
    make a better one. Source: contract, "NAS to agent".
    """

    def __str__(self) -> str:
        return one_line(super().__str__())  # it may quote the token's maker


class ScheduleError(ChronosError, ValueError):
    """A schedule, a time zone, an instant, a duration or a policy cannot be what its author meant.

    The message names the value and what was expected. Nothing happened; the value must be mended.
    """


class DataError(ChronosError, ValueError):
    """What a job shall carry is no JSON value, or too large a one; nothing was stored.

    The message names the part that is wrong, such as `data['to'][3]`.
    """


class MessageError(ChronosError, ValueError):
    """Data that is not the message it should be.

    Never raised itself: `LocalMessageError` and `RemoteMessageError` say who erred.

    Attributes:
        message: the name of the message.
        field: which field, e.g. `armed[3].job_id`; empty when the data as a whole is wrong.
        expected: what should have been there, in words.
        found: what was there instead, in words.
    """

    def __init__(self, message: str, field: str, expected: str, found: str) -> None:
        super().__init__(message, field, expected, found)
        self.message, self.field, self.expected, self.found = message, field, expected, found

    def __str__(self) -> str:
        return f"{self.message}{self.field and '.'}{self.field} is {self.found}; expected {self.expected}"


class LocalMessageError(MessageError):
    """This side was about to send what is no message: a mistake on this side. Nothing was sent."""


class RemoteMessageError(MessageError):
    """The other side sent what is no message.

    Attributes:
        error_status_hint: the HTTP status that answers it, should it have been a request.
    """

    error_status_hint: ClassVar[int] = 400


class SettingsError(ChronosError):
    """The configuration cannot be used as it is; mend it and start again.

    Attributes:
        problems: one line for each: which key, what was found, and what was expected.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        return "; ".join(self.problems)


class NotSettled(ChronosError):
    """A fire, or the arm of a new job, was not settled by a provider; NAS or the caller has to come back.

    To a fire, answer 503 with Retry-After: NAS delivers it again, which is harmless even where the run
    has started. Of a new job, tell its author that it is saved, and that its trigger is not registered.
    """


def printable(text: str) -> str:
    """Return *text* with whatever is not printable escaped: line breaks, controls, marks of direction."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def one_line(text: str) -> str:
    """Return *text* printable, and not longer than a message should be."""
    return printable(text if len(text) <= _LONGEST_PART else text[:_LONGEST_PART] + "…")
