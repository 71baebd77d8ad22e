"""Load the engine's own AppArmor profile into the kernel.

apparmor_parser(8) is the only compiler of profiles and takes a quarter of a second. So it runs only
if the kernel does not have the profile, or has another text of it: the run directory has a digest
of the text that was last loaded in this boot.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from jaula.security.lsm import apparmor_profile, detect

_DIGEST_FILE = "apparmor-profile"
_SEARCH_PATH = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin"
_TIMEOUT = 60.0  # seconds


def load(run: Path) -> str:
    """Load the profile if the kernel does not have it; return why that failed, or ''.

    ``run`` is the engine's run directory, which does not survive a reboot.
    """
    if not detect.apparmor():
        return ""
    loaded = detect.apparmor_profiles()
    if loaded is None:
        return "AppArmor's profiles cannot be read: /sys/kernel/security is not mounted"
    text = apparmor_profile.text(engine=detect.apparmor_current() or "unconfined")
    digest = hashlib.sha256(text.encode()).hexdigest()
    digest_file = run / _DIGEST_FILE
    if apparmor_profile.NAME in loaded and _read_digest(digest_file) == digest:
        return ""
    failure = _parse(text)
    if failure:
        return f"the AppArmor profile {apparmor_profile.NAME} is not loaded: {failure}"
    digest_file.write_text(digest)
    return ""


def _read_digest(digest_file: Path) -> str:
    try:
        return digest_file.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def _parse(text: str) -> str:
    """Compile and load a profile; return the parser's error, or ''."""
    environment = {"PATH": f"{_SEARCH_PATH}:{os.environ.get('PATH', '')}", "LANG": "C.UTF-8"}
    try:
        done = subprocess.run(
            ["apparmor_parser", "--replace", "--skip-cache"],
            input=text,
            capture_output=True,
            text=True,
            env=environment,
            timeout=_TIMEOUT,
            check=False,
        )
    except FileNotFoundError:
        return "apparmor_parser is not installed (package apparmor)"
    except subprocess.TimeoutExpired:
        return f"apparmor_parser did not exit within {_TIMEOUT:.0f} seconds"
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return f"apparmor_parser failed: {lines[-1] if lines else done.returncode}"
    return ""
