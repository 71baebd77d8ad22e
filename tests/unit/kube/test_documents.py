"""YAML with limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.features.kubernetes.kube.kube_documents import MAX_SIZE, InvalidDocument, load


def value(text: str) -> object:
    return load(f"kind: X\nv: {text}\n".encode())[0]["v"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("yes", "yes"),  # YAML 1.2: a word
        ("true", True),
        ("'true'", "true"),
        ("80", 80),
        ('"80"', "80"),
        ("-1", -1),
        ("0400", 256),
        ("0o4", "0o4"),
        ("0x10", 16),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("~", None),
        ("2026-01-01", "2026-01-01"),
        ("500m", "500m"),
        ("[a, {b: c}]", ["a", {"b": "c"}]),
        ("{a: &x [1], b: *x}", {"a": [1], "b": [1]}),
        ("|\n  a\n  b\n", "a\nb\n"),
    ],
)
def test_a_value_has_the_type_of_kubernetes(text: str, expected: object) -> None:
    assert value(text) == expected


def test_documents_and_lists_are_objects_one_by_one() -> None:
    text = b"---\nkind: A\n---\n---\nkind: List\nitems: [{kind: B}, {kind: C}]\n"
    assert [entry["kind"] for entry in load(text)] == ["A", "B", "C"]


def bomb() -> str:
    lines = ["kind: X", "a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9]"]
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bomb(), "more than 50000 values"),
        (f"kind: X\na: &a {'x' * 9999}\nb: [{', '.join(['*a'] * 999)}]", "4194304 characters"),
        (f"kind: X\na: &a [{'x' * 9999}]\nb: [{', '.join(['*a'] * 999)}]", "4194304 characters"),
        ("kind: X\nv: " + "[" * 900 + "]" * 900, "levels"),
        ("kind: X\nv: " + "[" * 100_000, "levels|nest|depth"),
        ("kind: X\n" + "\n".join(f"k{i}: 1" for i in range(60_000)), "values"),
        ("kind: X\nv: *none", "alias|anchor"),
        ("kind: X\nv: &a [*a]", "anchor"),
        ("kind: X\nkind: Y", "occurs twice"),
        ("kind: X\n? [a]\n: b", "key"),
        ("kind: X\nv: [", "line 3|did not find"),
        ("- a", "not an object"),
        ("a: b", "no kind"),
        ("", "no object"),
        ("kind: List\nitems: [1]", "items"),
        ("\x00", "character"),
        ("#" * (MAX_SIZE + 1), "larger"),
    ],
)
def test_hostile_yaml_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidDocument, match=message):
        load(text.encode())


def test_a_tag_builds_nothing() -> None:
    assert value("!!python/object/apply:os.system [id]") == ["id"]


@given(st.binary(max_size=200))
def test_any_bytes_are_objects_or_refused(data: bytes) -> None:
    try:
        load(data)
    except InvalidDocument:
        return
