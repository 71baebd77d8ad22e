"""The image policy of an engine without the feature trust."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaula.errors import InvalidRequest
from jaula.images.policy import ImageRefused, OpenPolicy

RULES = '[images]\ndefault = "reject"\n'


def test_a_file_with_rules_about_images_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(RULES)
    with pytest.raises(InvalidRequest, match="the feature trust is not installed"):
        OpenPolicy(str(file), required=True)


def test_rules_that_are_added_later_refuse_every_image(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("")
    policy = OpenPolicy(str(file), required=True)
    policy.check_start("id", "busybox")
    file.write_text(RULES)
    for _ in range(2):
        with pytest.raises(ImageRefused, match="the feature trust is not installed"):
            policy.check_start("id", "busybox")
