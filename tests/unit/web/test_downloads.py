"""One-time addresses of downloads."""

from __future__ import annotations

import pytest

from jaula.errors import NotAuthorized
from jaula.features.web import downloads
from jaula.features.web.downloads import Downloads
from jaula.features.web.sessions import Session, Sessions
from jaula.spec.api_params import WebUser

ALICE = WebUser(uid=1000)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def session_of(user: WebUser = ALICE) -> Session:
    return Session(user, "link", 0.0)


def test_an_address_works_once(clock: Clock) -> None:
    addresses, session = Downloads(clock), session_of()
    token = addresses.create(session, "/files/a?path=/b")
    assert addresses.take(token) == (session, "/files/a?path=/b")
    with pytest.raises(NotAuthorized, match="was used, or is too old"):
        addresses.take(token)


@pytest.mark.parametrize("token", ["", "x", "\udcff"])
def test_an_address_that_was_not_made_is_refused(clock: Clock, token: str) -> None:
    with pytest.raises(NotAuthorized):
        Downloads(clock).take(token)


def test_an_address_expires(clock: Clock) -> None:
    addresses = Downloads(clock)
    early, late = (addresses.create(session_of(), "/api/x") for _ in range(2))
    clock.now += downloads.SECONDS - 1
    addresses.take(early)
    clock.now += 1
    with pytest.raises(NotAuthorized):
        addresses.take(late)


def test_an_address_ends_with_its_session(clock: Clock) -> None:
    addresses, sessions = Downloads(clock), Sessions(clock)
    (identifier, session), (_, other) = (sessions.create(ALICE, "link") for _ in range(2))
    mine, theirs = addresses.create(session, "/api/x"), addresses.create(other, "/api/y")
    sessions.end(identifier)
    with pytest.raises(NotAuthorized):
        addresses.take(mine)
    assert addresses.take(theirs) == (other, "/api/y")


def test_a_session_has_a_limited_number_of_addresses(clock: Clock) -> None:
    addresses, session, other = Downloads(clock), session_of(), session_of()
    kept = addresses.create(other, "/api/z")
    first = addresses.create(session, "/api/0")
    tokens = [addresses.create(session, f"/api/{n}") for n in range(downloads.MAX_OF_SESSION)]
    assert len(addresses) == downloads.MAX_OF_SESSION + 1
    with pytest.raises(NotAuthorized):
        addresses.take(first)
    assert [addresses.take(token)[1] for token in tokens][-1].startswith("/api/")
    addresses.take(kept)
