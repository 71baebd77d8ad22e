"""The store of secrets: a record is replaced as a whole, or stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaula.errors import InvalidRequest, Unavailable
from jaula.features.secrets.encryption import SecretEncryption
from jaula.features.secrets.secret_store import SecretKind, SecretStore
from jaula.state.database import Database

KIND = SecretKind.SECRET


def opened(directory: Path) -> tuple[Database, SecretStore]:
    database = Database(directory / "state.db")
    store = SecretStore(database, SecretEncryption(directory))
    store.load()
    return database, store


def test_a_replaced_secret_is_another_one_with_the_name(tmp_path: Path) -> None:
    database, store = opened(tmp_path)
    former = store.create(KIND, "key", {"a": "1"}, b"old", "0")
    made = store.replace(former, {"b": "2"}, b"new", "1000")
    assert made.id != former.id
    database.close()
    _, after = opened(tmp_path)
    (found,) = after.of(KIND)
    assert (found.id, found.name, found.labels, found.owner) == (made.id, "key", {"b": "2"}, "1000")
    assert after.data(found) == b"new"


@pytest.mark.parametrize("fault", ["size", "disk"])
def test_the_former_secret_stays_if_the_new_one_is_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    database, store = opened(tmp_path)
    former = store.create(KIND, "key", {}, b"old", "0")

    def put(*_: object) -> None:
        raise Unavailable("no space left on device")

    with monkeypatch.context() as patch:
        if fault == "disk":
            patch.setattr(database, "put", put)
        with pytest.raises((InvalidRequest, Unavailable)):
            store.replace(former, {}, b"" if fault == "size" else b"new", "0")
    assert store.data(store.find(KIND, "key")) == b"old"
    database.close()
    _, after = opened(tmp_path)
    assert [each.id for each in after.of(KIND)] == [former.id]
    assert after.data(former) == b"old"
