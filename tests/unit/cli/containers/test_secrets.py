"""Parsing of ``--secret`` and ``--config``."""

from __future__ import annotations

from typing import Any

import pytest

from jaula.cli.cli_errors import UsageError
from jaula.cli.containers import secret_option


@pytest.mark.parametrize(
    ("word", "document"),
    [
        ("db", {"Source": "db"}),
        ("source=db", {"Source": "db"}),
        ("src=db,target=/x", {"Source": "db", "Target": "/x"}),
        (
            "db,target=pw,mode=0400,uid=7,gid=8",
            {"Source": "db", "Target": "pw", "Mode": 0o400, "UID": "7", "GID": "8"},
        ),
        ('db,"target=/a,b"', {"Source": "db", "Target": "/a,b"}),
    ],
)
def test_a_reference_is_parsed(word: str, document: dict[str, Any]) -> None:
    assert secret_option.document(word, "secret") == document


@pytest.mark.parametrize("word", ["", "target=x", "db,mode=9", "db,mode=", "db,colour=red", "db,x"])
def test_an_invalid_reference_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match='for "--config" flag'):
        secret_option.document(word, "config")
