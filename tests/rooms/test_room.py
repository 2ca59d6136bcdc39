"""File descriptors that run short: who keeps a connection, and for how long."""

from torana.api.room import CLOSED_AT_ONCE, HASTY_S, LENT_FILES, SILENT_S, Room

FILES = 40


class Client:
    """Connects, and says nothing."""

    is_quiet = True

    def __init__(self, hall: "Hall") -> None:
        self.since = hall.time_s
        self.hall = hall
        hall.connections.add(self)
        hall.room.welcome(self)

    def end(self) -> None:
        self.hall.connections.discard(self)


class Hall:
    """A room with a clock that the test moves; over TLS nobody comes."""

    def __init__(self) -> None:
        self.time_s = 100.0
        self.connections: set[Client] = set()
        self.room = Room(FILES, self.connections, self, None, now=lambda: self.time_s)

    def __len__(self) -> int:
        return 0

    def end_begun_until(self, moment: float) -> bool:
        return False

    def fill(self) -> None:
        while self.room.has_file():
            Client(self)


def test_half_of_the_descriptors_are_places_and_some_more_are_lent() -> None:
    hall = Hall()

    hall.fill()

    assert sum(map(hall.room.let_in, set(hall.connections))) == FILES // 2
    assert len(hall.connections) == FILES // 2 + LENT_FILES


def test_a_client_has_a_moment_to_ask() -> None:
    hall = Hall()
    hall.fill()
    crowd = set(hall.connections)

    hall.time_s += SILENT_S - 0.01
    assert not hall.room.has_file()
    hall.time_s += SILENT_S

    assert hall.room.has_file()
    assert len(crowd - hall.connections) == CLOSED_AT_ONCE


def test_where_descriptors_are_short_for_longer_the_moment_is_short_too() -> None:
    hall = Hall()
    hall.fill()
    for _ in range(4 * round(SILENT_S / HASTY_S)):  # who comes then says nothing either
        hall.time_s += HASTY_S
        hall.fill()

    assert min(each.since for each in hall.connections) > hall.time_s - SILENT_S / 2


def test_a_place_is_given_on_when_its_request_is_answered() -> None:
    hall = Hall()
    hall.fill()
    for client in hall.connections:
        client.is_quiet = False
    others = [each for each in hall.connections if not hall.room.let_in(each)]
    assert others

    hall.room.leave(next(each for each in hall.connections - set(others)))

    assert hall.room.let_in(others[0])
    assert not hall.room.let_in(others[1])
