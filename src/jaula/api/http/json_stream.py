"""Streams of JSON documents, one per line (moby ``pkg/jsonmessage``, events, stats)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from jaula.api.http.response import encode


async def close(iterator: AsyncIterator[Any]) -> None:
    """Run a generator's clean-up now; plain iterators have none."""
    aclose = getattr(iterator, "aclose", None)
    if aclose is not None:
        await aclose()


async def lines(documents: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    """Each document as a line; closing this closes ``documents``."""
    try:
        async for document in documents:
            yield encode(document)
    finally:
        await close(documents)
