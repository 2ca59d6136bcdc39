"""Kinds of requests that there is no room for, and how many of them are let in."""

from torana.api.crowds import FEW, MAX_BODY_BYTES, MOST_AT_ONCE, MOST_KINDS, OVER_S, SHARE, Crowds, Kind, kind_of

A = Kind("/v1/chat", "one", (b"a",))
B = Kind("/v1/chat", "one", (b"b",))


class Door:
    """A clock and a count that are moved by hand."""

    def __init__(self) -> None:
        self.time, self.shed = 100.0, list[str]()
        self.crowds = Crowds(self.shed.append, lambda: self.time)

    def fill(self, kind: Kind) -> None:
        self.crowds.note(kind, was_refused=True)

    def let_in(self, kind: Kind | None, requests: int, room: int = 0) -> int:
        """How many of them, where the first `room` of those find some."""
        found = 0
        for _ in range(requests):
            if self.crowds.lets_in(kind):
                found += 1
                self.crowds.note(kind, was_refused=found > room)
        return found


def test_nobody_is_looked_at_until_somebody_found_no_room() -> None:
    door = Door()
    door.crowds.note(A, was_refused=False)
    assert not door.crowds.are_any

    door.fill(A)

    assert door.crowds.are_any


def test_a_few_a_second_are_let_in_however_full_it_is() -> None:
    door = Door()
    door.fill(A)

    assert door.let_in(A, 1000) == FEW
    assert door.shed == ["no_room"] * (1000 - FEW)

    door.time += 1
    assert door.let_in(A, 1000) == FEW


def test_for_each_that_finds_room_two_more_are_let_in() -> None:
    door = Door()
    door.fill(A)
    door.let_in(A, FEW)
    seconds, room = 20, 50

    let_in = 0
    for _ in range(seconds):
        door.time += 1
        let_in += door.let_in(A, 1000, room)

    assert let_in == seconds * (FEW + SHARE * room)


def test_where_all_find_room_again_all_are_let_in_before_long() -> None:
    door = Door()
    door.fill(A)
    door.let_in(A, 10_000)
    door.time += 0.5

    assert door.let_in(A, 1000, room=1000) == 1000
    # But not any number at once when it is full again.
    door.time += 1
    assert door.let_in(A, 10_000) <= MOST_AT_ONCE


def test_another_model_is_not_held_up() -> None:
    door = Door()
    door.fill(A)
    door.let_in(A, 100)

    assert door.crowds.lets_in(B)
    assert door.crowds.lets_in(None)
    assert not door.crowds.lets_in(A)


def test_a_crowd_that_has_left_is_forgotten() -> None:
    door = Door()
    door.fill(A)
    door.let_in(A, 100)

    door.time += OVER_S + 1
    assert door.crowds.lets_in(B)

    assert not door.crowds.are_any


def test_clients_that_invent_kinds_fill_no_memory() -> None:
    door = Door()
    for number in range(10 * MOST_KINDS):
        door.fill(Kind("/", f"{number}", ()))

    kept = [number for number in range(10 * MOST_KINDS) if door.let_in(Kind("/", f"{number}", ()), 50) < 50]

    assert len(kept) == MOST_KINDS


def test_a_kind_is_a_path_an_instance_and_the_models_that_are_named() -> None:
    said = b'"a \\"model\\": \\"not this\\""'
    body = b'{"model": "gpt","messages":[{"content":%b}],"model_metadata":{"identifier":"x/y"}}' % said

    assert kind_of("/p", "one", body) == Kind("/p", "one", (b"gpt", b"x/y"))
    assert kind_of("/p", "", body) is None  # who sends it nobody knows yet
    assert kind_of("/p", "one", b" " * (MAX_BODY_BYTES + 1)) is None
