"""The features that OCI runtimes report about themselves."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from jaula.config import EngineConfig, RuntimeConfig
from jaula.engine.oci_runtimes import RuntimeFeatures, RuntimeTable
from jaula.errors import InvalidRequest


def features(directory: Path, printed: str, name: str = "other") -> RuntimeFeatures | None:
    """Return the features of a runtime that prints a text."""
    program = directory / "runtime"
    (directory / "text").write_text(printed)
    program.write_text(f"#!/bin/sh\nexec cat {directory}/text\n")
    program.chmod(0o755)

    async def run() -> RuntimeFeatures | None:
        table = RuntimeTable(EngineConfig(runtimes=(RuntimeConfig("other", str(program)),)))
        table.open()
        try:
            return await table.features(name)
        finally:
            await table.close()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"mountOptions": ["ro", "rro"], "linux": {"namespaces": ["pid", "user"]}}, (True, True)),
        ({"mountOptions": ["ro"], "linux": {"namespaces": ["pid"]}}, (False, False)),
        ({"mountOptions": None, "linux": None}, (False, False)),
        ({"linux": {"namespaces": None}}, (False, False)),
        ({}, (False, False)),
    ],
)
def test_what_a_runtime_does_not_report_it_cannot(
    tmp_path: Path, document: dict[str, Any], expected: tuple[bool, bool]
) -> None:
    found = features(tmp_path, json.dumps(document))
    assert found is not None
    assert (found.recursive_read_only, found.user_namespaces) == expected


@pytest.mark.parametrize("text", ["", "{", '{"linux": 1}', '{"mountOptions": [1]}', "[" * 100_000])
def test_a_document_that_cannot_be_read_is_no_document(tmp_path: Path, text: str) -> None:
    assert features(tmp_path, text) is None


def test_the_own_runtime_has_both_and_an_unknown_one_is_an_error(tmp_path: Path) -> None:
    own = features(tmp_path, "", "jaula")
    assert own is not None and own.recursive_read_only and own.user_namespaces
    with pytest.raises(InvalidRequest, match="unknown"):
        features(tmp_path, "", "absent")
