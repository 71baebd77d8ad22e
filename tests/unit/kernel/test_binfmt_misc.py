"""Handlers of binfmt_misc, and the platforms that they make runnable."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaula.images.image_platform import runnable
from jaula.kernel import binfmt_misc
from jaula.spec.image_documents import Platform

ARM64 = """enabled
interpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P
flags: POCF
offset 0
magic 7f454c460201010000000000000000000200b700
mask ffffffffffffff00fffffffffffffffffeffffff
"""
AMD64 = Platform("amd64", "linux")


def names(*texts: str) -> list[str]:
    handlers = [handler for text in texts if (handler := binfmt_misc.parse(text)) is not None]
    return [platform.architecture for platform in runnable(handlers, AMD64)]


def test_an_emulator_makes_a_platform_runnable() -> None:
    assert names() == ["amd64", "386"]
    assert names(ARM64) == ["amd64", "386", "arm64"]


@pytest.mark.parametrize(
    "text",
    [
        ARM64.replace("enabled", "disabled"),
        ARM64.replace("POCF", "POC"),  # the interpreter would have to be in the image
        ARM64.replace("b700", "b7zz"),
        ARM64.replace("mask ff", "mask "),
        "enabled\ninterpreter /usr/bin/wine\nflags: \nextension .exe\n",
        "",
        "magic\nenabled",
    ],
)
def test_other_handlers_make_none(text: str) -> None:
    assert names(text) == ["amd64", "386"]


def test_the_file_system_is_read(tmp_path: Path) -> None:
    assert binfmt_misc.handlers(str(tmp_path / "missing")) == []
    (tmp_path / "qemu-aarch64").write_text(ARM64)
    (tmp_path / "register").write_text("")
    assert len(binfmt_misc.handlers(str(tmp_path))) == 1
    (tmp_path / "status").write_text("disabled\n")
    assert binfmt_misc.handlers(str(tmp_path)) == []
