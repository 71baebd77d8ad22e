"""Names and ids."""

from __future__ import annotations

import pytest

from jaula.engine.model.container_store import check_name, new_id, random_name
from jaula.errors import InvalidRequest


@pytest.mark.parametrize("name", ["ab", "a.b", "A_1-x", "0a", "/web", "a" * 255])
def test_a_valid_name_is_accepted(name: str) -> None:
    assert check_name(name) == name.removeprefix("/")


@pytest.mark.parametrize(
    "name", ["", "a", "-a", ".a", "a b", "a/b", "a\n", "ä1", "a" * 256, "//ab", "a\0b", "../x"]
)
def test_a_bad_name_is_refused_with_the_grammar(name: str) -> None:
    with pytest.raises(InvalidRequest, match="are allowed"):
        check_name(name)


def test_random_names_follow_the_grammar_and_differ() -> None:
    made = {random_name(()) for _ in range(100)}
    assert len(made) > 80
    assert all(check_name(name) == name for name in made)


def test_a_random_name_is_never_one_in_use() -> None:
    first = random_name((), lambda bound: 0)
    assert random_name({first}, lambda bound: 0) != first


def test_ids_are_sixty_four_digits_and_no_number() -> None:
    for _ in range(100):
        made = new_id()
        assert len(made) == 64
        assert not made[:12].isdecimal()
        int(made, 16)
