"""The page that leads a browser to a login link: other users of the host cannot read it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from jaula.features.web import web_cli

LINK = "http://127.0.0.1:8320/login#the-code"


def test_the_browser_gets_the_name_of_a_private_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr("subprocess.Popen", lambda words, **_: started.append(words))
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    web_cli._open(LINK)
    assert capsys.readouterr().out.strip() == LINK
    ((opener, page),) = started
    assert opener == "/usr/bin/xdg-open"
    assert "the-code" not in page
    assert f'content="0;url={LINK}"' in Path(page).read_text()
    assert stat.S_IMODE(Path(page).stat().st_mode) == 0o600


def test_a_file_of_the_name_that_others_can_read_becomes_private(tmp_path: Path) -> None:
    page = tmp_path / "jaula-web-link.html"
    page.write_text("earlier")
    page.chmod(0o644)
    assert web_cli._page(str(tmp_path), 'http://x/"><script>') == str(page)
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert "<script>" not in page.read_text()


def test_a_link_in_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "jaula-web-link.html").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic links"):
        web_cli._page(str(tmp_path), LINK)
    assert not (tmp_path / "other").exists()
