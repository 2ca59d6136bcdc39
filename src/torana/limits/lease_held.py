"""What a worker has of exact limits on tokens and money: the store has written it down under the worker's name.

What was granted and is not taken yet is for the calls that wait here, and for no other worker of the server: each gives
back what its own name was granted, or the store would one day free with that name what another has spent.
"""

from torana.limits.lease_notes import Told
from torana.limits.questions import arguments
from torana.limits.rules import Rule
from torana.limits.table import Key

Of = tuple[Key, int]
"""A count, and the UNTIL of its window."""


class Held:
    def __init__(self) -> None:
        self._calls: dict[Of, tuple[Rule, int, int]] = {}
        """The rule, the window's END, and what calls under way hold."""
        self._untaken: dict[Of, int] = {}

    def __bool__(self) -> bool:
        return bool(self._calls)

    def room(self, of: Of) -> int:
        """What calls may take."""
        return self._untaken.get(of, 0)

    def grant(self, of: Of, amount: int) -> None:
        left = self.room(of) + amount
        if left > 0:
            self._untaken[of] = left
        else:
            self._untaken.pop(of, None)

    def take(self, of: Of, rule: Rule, end: int, amount: int) -> None:
        """Out of the room. `end`: the window's END."""
        self.grant(of, -amount)
        already = self._calls[of][2] if of in self._calls else 0
        self._calls[of] = rule, end, already + amount

    def release(self, of: Of, amount: int) -> None:
        """A call that had taken it has ended."""
        if of in self._calls:
            rule, end, held = self._calls.pop(of)
            if held > amount:
                self._calls[of] = rule, end, held - amount

    def leave(self, of: Of) -> int:
        """What nobody here has taken goes back; returns how much."""
        return self._untaken.pop(of, 0)

    def forget_untaken(self) -> None:
        """The name is another now, and what nobody has taken is free with the old one."""
        self._untaken.clear()

    def forget_ended(self, now: int) -> None:
        self._untaken = {of: amount for of, amount in self._untaken.items() if of[1] > now}

    def lines(self, now: int) -> list[Told]:
        """What calls hold, for a store that knows the worker by another name.

        Not what is of a window that is over: it would count in the next one.
        """
        return [
            Told(key, rule, arguments(rule, back=-amount, back_end=end, freed=-amount))
            for (key, until), (rule, end, amount) in self._calls.items()
            if until > now
        ]
