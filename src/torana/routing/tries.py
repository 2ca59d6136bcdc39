"""The words of choosing: where a call may go and why, and where it went."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import msgspec

from torana.chat import Usage
from torana.errors import ProviderError, Refusal
from torana.providers.provider import Deployment
from torana.routing.health import Health
from torana.routing.models import Model

T = TypeVar("T")


class Candidate(msgspec.Struct, frozen=True):
    """A deployment that a call may go to."""

    deployment: Deployment
    health: Health
    why: str
    """Why it stands at its place."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One line of an explanation: a deployment, its part in the call, and why."""

    deployment: Deployment
    part: Literal["first", "fallback", "shadow", "left out"]
    why: str


Outcome = Literal["answered", "failed", "left", "outrun"]
"""`left`: its client went. `outrun`: a hedge was faster."""


class Try(msgspec.Struct, frozen=True):
    """One sending, for the books."""

    deployment: Deployment
    outcome: Outcome
    status: int
    """The provider's, or what HTTP would call the failure; 0 where there was none."""
    code: str
    """The failure's; empty: none."""
    seconds: float
    """Until its first chunk, or until it ended without one."""
    may_be_charged: bool
    """The provider may have worked on it."""
    usage: Usage | None = None
    """What the provider told of a try that failed; that of the answer is told with the answer."""


class Route(msgspec.Struct):
    """Where a call may go, and how often; then, where it went."""

    model: Model
    candidates: tuple[Candidate, ...]
    """In the order in which they are to be tried; at least one."""
    limit: int
    """Sendings in all."""
    party: str = ""
    """On whose behalf it waits where it has to."""
    left_out: tuple[Reason, ...] = ()
    shadows: tuple[Candidate, ...] = ()
    """To be sent to as well, for nobody."""
    tries: list[Try] = msgspec.field(default_factory=list)

    @property
    def deployments(self) -> tuple[Deployment, ...]:
        return tuple(candidate.deployment for candidate in self.candidates)

    def keep_able(self, check: Callable[[Deployment], T]) -> T:
        """Leaves those as candidates that `check` does not raise Refusal for; what it said of the first of them.

        Raises what it raised first where nobody is left.
        """
        able: list[Candidate] = []
        said: list[T] = []
        refusals: list[Refusal] = []
        for candidate in self.candidates:
            try:
                said.append(check(candidate.deployment))
                able.append(candidate)
            except Refusal as unable:
                refusals.append(unable)
        if not able:
            raise refusals[0]
        self.candidates = tuple(able)
        return said[0]

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Every deployment of the model and what becomes of it, for `torana explain request`."""
        part: Literal["first", "fallback"] = "first"
        found = []
        for candidate in self.candidates:
            found.append(Reason(candidate.deployment, part, candidate.why))
            part = "fallback"
        shadows = [Reason(each.deployment, "shadow", each.why) for each in self.shadows]
        return (*found, *shadows, *self.left_out)


def may_be_charged(failure: ProviderError) -> bool:
    """Whether the provider may have worked on a call that failed so, before it sent any of the answer."""
    return failure.code in ("provider_timeout", "provider_broke")
