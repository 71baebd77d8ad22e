"""Who may move a name of an image, and what the index of names keeps about it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jaula.errors import NotAuthorized
from jaula.images.store.image_catalog import NAME_OWNER, NameIndex
from jaula.images.store.image_names import ROOT, NameRights, owners_after
from jaula.images.store.index import HELD
from jaula.spec.image_documents import REF_NAME

OLD, NEW = "sha256:" + "1" * 64, "sha256:" + "2" * 64
ALICE = NameRights("1001")
ADMIN = NameRights(ROOT, administers=True)
CONTROLLER = NameRights("1002", lambda owner: True)


def decide(
    rights: NameRights | None, owner: str | None, former: str = OLD, *, same: bool = False
) -> dict[str, str]:
    known = owner is not None
    return owners_after(
        ["app:1"],
        NEW,
        {"app:1": former} if known else {},
        {"app:1": owner} if owner is not None else {},
        lambda target: same,
        rights,
    )


@pytest.mark.parametrize(
    ("rights", "owner", "after"),
    [
        (ALICE, None, "1001"),
        (ALICE, "1001", "1001"),
        (ADMIN, "1001", ROOT),
        (ADMIN, "", ROOT),
        (CONTROLLER, "1001", "1002"),
        (CONTROLLER, ROOT, "1002"),
        (None, "1001", "1001"),
    ],
)
def test_who_sets_or_moves_a_name_owns_it(
    rights: NameRights | None, owner: str | None, after: str
) -> None:
    assert decide(rights, owner) == {"app:1": after}


@pytest.mark.parametrize("owner", [ROOT, "", "1003", "container:abc", "certificate x", "nobody"])
def test_another_caller_moves_no_name(owner: str) -> None:
    with pytest.raises(NotAuthorized, match="may not move the name app:1 of") as caught:
        decide(ALICE, owner)
    assert caught.value.status == 403
    assert "digest" in str(caught.value.hint)


@pytest.mark.parametrize("owner", [ROOT, "", "1003"])
def test_a_name_that_does_not_move_keeps_its_owner(owner: str) -> None:
    assert decide(ALICE, owner, former=NEW) == {"app:1": owner}


def test_an_administrator_takes_over_a_name_that_does_not_move() -> None:
    assert decide(ADMIN, "1001", former=NEW) == {"app:1": ROOT}
    other = NameRights("1004", administers=True)
    assert decide(other, ROOT, former=NEW) == {"app:1": ROOT}


def test_a_name_of_another_owner_stays_at_another_form_of_the_same_image() -> None:
    assert decide(ALICE, ROOT, same=True) == {}


def test_an_empty_key_owns_nothing() -> None:
    assert not NameRights("").may_change("")


def test_owners_of_names_are_kept_in_the_file(tmp_path: Path) -> None:
    index = NameIndex(tmp_path)
    index.set(OLD, 10, ["a:1"], owner="1001", name_owners={"a:1": "1001"})
    index.set(OLD, 10, ["b:1"], name_owners={"b:1": "0"})
    index.set(NEW, 10, ["b:1"], name_owners={"b:1": "1002"})
    index.set(NEW, 10, ["c:1"], owner="0", held=[OLD], name_owners={"c:1": "0"})
    index.release(NEW, [OLD])
    index.unset(["c:1"])
    for again in (index, NameIndex(tmp_path)):
        assert again.name_owners == {"a:1": "1001", "b:1": "1002"}
    index.set(NEW, 10, ["b:1"], name_owners={"b:1": "0"})
    assert NameIndex(tmp_path).name_owners["b:1"] == "0"


def test_the_names_of_each_owner_are_counted(tmp_path: Path) -> None:
    index = NameIndex(tmp_path)
    index.set(OLD, 10, ["a:1", "a:2"], owner="1001", name_owners={"a:1": "1001", "a:2": "1001"})
    index.set(NEW, 10, ["b:1", "a:2"], name_owners={"b:1": "1002", "a:2": "1002"})
    for again in (index, NameIndex(tmp_path)):
        assert again.name_counts == {"1001": 1, "1002": 2}
    index.unset(["b:1"])
    assert index.name_counts == {"1001": 1, "1002": 1}


def test_the_manifests_of_an_index_are_written_once(tmp_path: Path) -> None:
    index, held = NameIndex(tmp_path), ["sha256:" + f"{n:064}" for n in range(8)]
    index.set(NEW, 10, ["a:1"], held=held)
    index.set(NEW, 10, ["b:1", "c:1"])
    index.set(OLD, 10, ["d:1"])

    def written() -> list[list[str]]:
        documents = json.loads((tmp_path / "index.json").read_bytes())["manifests"]
        texts = [d.get("annotations", {}).get(HELD) for d in documents]
        return [text.split() for text in texts if text is not None]

    for gone in (["a:1"], ["b:1"], ["c:1"]):  # also the name that has them, and the last one
        assert written() == [held]
        assert NameIndex(tmp_path).held(NEW) == tuple(held)
        index.unset(gone)
    assert written() == [held]
    index.release(NEW, held[:1])
    assert written() == [held[1:]]
    index.release(NEW, held)
    assert written() == []
    index.set(NEW, 10, ["e:1"], held=held)
    index.drop([NEW])
    assert written() == []
    assert NameIndex(tmp_path).held(NEW) == ()


def test_a_name_of_an_older_engine_belongs_to_the_owner_of_its_image(tmp_path: Path) -> None:
    index = NameIndex(tmp_path)
    index.set(OLD, 10, ["a:1"], owner="1001", name_owners={"a:1": "0"})
    index.set(NEW, 10, ["b:1"], name_owners={"b:1": "1002"})
    file = tmp_path / "index.json"
    document = json.loads(file.read_bytes())
    for descriptor in document["manifests"]:
        del descriptor["annotations"][NAME_OWNER]
    file.write_text(json.dumps(document))
    older = NameIndex(tmp_path)
    assert older.name_owners == {"a:1": "1001", "b:1": ""}
    # Another name of the image, and another owner of the image, leave the owner as it is.
    older.set(OLD, 10, ["c:1"], owner="1003", held=[NEW], name_owners={"c:1": "1003"})
    written = {
        d["annotations"][REF_NAME]: d["annotations"].get(NAME_OWNER)
        for d in json.loads(file.read_bytes())["manifests"]
        if d["digest"] == OLD
    }
    assert written == {"a:1": "1001", "c:1": "1003"}
