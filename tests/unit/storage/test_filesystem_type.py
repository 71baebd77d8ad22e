"""The types of file systems, and which of them date all writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaula.storage import filesystem_type


@pytest.mark.parametrize(
    ("magic", "name", "dated"),
    [
        (0xEF53, "extfs", True),
        (0x58465342, "xfs", True),
        (0x9123683E, "btrfs", True),
        (0x01021994, "tmpfs", False),
        (0x6969, "nfs", False),
        (0x65735546, "fuse", False),
        (0x12345, "0x12345", False),
    ],
)
def test_only_known_file_systems_date_all_writes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, magic: int, name: str, dated: bool
) -> None:
    monkeypatch.setattr(filesystem_type, "filesystem_magic", lambda _: magic)
    assert filesystem_type.filesystem_name(tmp_path) == name
    assert filesystem_type.dates_all_writes(tmp_path) is dated
