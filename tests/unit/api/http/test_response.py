"""Long documents of JSON: they are encoded in pieces, between which other tasks run."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.api.http import response
from jaula.api.http.response import PIECE, Response, StreamResponse, encode, long_json
from unit.api.client import Served, served

DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 53), 1 << 53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=30,
)


def collect(answer: response.Answer) -> list[bytes]:
    """Return the pieces of an answer."""
    if isinstance(answer, Response):
        return [answer.body]
    assert isinstance(answer, StreamResponse)
    chunks = answer.chunks

    async def read() -> list[bytes]:
        return [piece async for piece in chunks]

    return asyncio.run(read())


@pytest.mark.parametrize("piece", [1, 20, PIECE])
@given(document=DOCUMENTS, depth=st.integers(0, 4))
def test_a_document_in_pieces_is_the_document(piece: int, document: Any, depth: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(response, "PIECE", piece)
        assert b"".join(collect(long_json(document, depth))) == encode(document)


def test_a_short_list_is_one_answer_with_a_length() -> None:
    document = [{"Id": "a" * 64, "Labels": {"b": "c"}} for _ in range(100)]
    answer = long_json(document)
    assert answer == response.json(document)


def test_a_long_list_is_a_stream_of_pieces() -> None:
    items = [{"Id": str(i), "Labels": {"a": "x" * 10_000}} for i in range(1000)]
    for document, depth in ((items, 1), ({"Volumes": items}, 2), ({"A": {"Items": items}}, 3)):
        pieces = collect(long_json(document, depth))
        assert max(map(len, pieces)) < PIECE + 11_000
        assert json.loads(b"".join(pieces)) == document


def test_names_of_files_that_are_not_text_are_replaced_in_every_piece() -> None:
    document = [{"Path": "/caf\udce9", "Kind": 1}] * 5000
    pieces = collect(long_json(document))
    assert len(pieces) > 1
    assert {each["Path"] for each in json.loads(b"".join(pieces))} == {"/caf\ufffd"}


@pytest.mark.parametrize(
    ("path", "member", "depth"),
    [
        ("/containers/json?all=1", "containers", 0),
        ("/images/json", "images", 0),
        ("/networks", "networks", 0),
        ("/volumes", "volumes", 1),
        ("/containers/a/changes", "changes", 0),
    ],
)
def test_other_tasks_run_while_a_long_list_is_encoded(
    monkeypatch: pytest.MonkeyPatch, path: str, member: str, depth: int
) -> None:
    members: Any = {"HostConfig": {}, "NetworkSettings": {"Networks": {}}, "Descriptor": {}}
    items = [{"Id": "a", "Labels": {"a": "x" * 20_000}} | members for _ in range(500)]
    document: Any = {"Volumes": items, "Warnings": None} if depth else items
    encoded_before_a_turn = 0
    most = 0

    def measured(value: Any) -> bytes:
        nonlocal encoded_before_a_turn, most
        data = original(value)
        encoded_before_a_turn += len(data)
        most = max(most, encoded_before_a_turn)
        return data

    original = response._encode

    async def listed(*_: Any, **__: Any) -> Any:
        return document

    def listed_at_once(*_: Any, **__: Any) -> Any:
        return document

    async def test(server: Served) -> None:
        nonlocal encoded_before_a_turn

        async def other() -> None:
            nonlocal encoded_before_a_turn
            while True:
                encoded_before_a_turn = 0
                await asyncio.sleep(0)

        owner = server.engine.containers if member == "changes" else getattr(server.engine, member)
        name = "changes" if member == "changes" else "list"
        at_once = member == "networks"
        monkeypatch.setattr(owner, name, listed_at_once if at_once else listed)
        monkeypatch.setattr(response, "_encode", measured)
        client = await server.client()
        task = asyncio.ensure_future(other())
        try:
            answer = await client.ask("GET", path)
        finally:
            task.cancel()
        assert answer.status == 200
        assert len(answer.body) > 500 * 20_000
        assert most < 4 * PIECE  # two pieces before the head, and one for each turn

    served(test)
