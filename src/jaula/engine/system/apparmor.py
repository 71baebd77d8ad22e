"""Loading the engine's own AppArmor profile into the kernel.

By apparmor_parser(8), which is the only compiler of profiles. It takes a quarter of a second, so
it is done when the kernel does not have the profile, or has another text of it: what was loaded
last in this boot is noted in the run directory.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from jaula.security.lsm import apparmor_profile, detect

_NOTE = "apparmor-profile"
_PLACES = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin"
_SECONDS = 60.0


def load(run: Path) -> str:
    """See to it that the kernel has the profile; what stood in the way, empty: nothing.

    ``run`` is the engine's run directory, which does not survive a boot.
    """
    if not detect.apparmor():
        return ""
    loaded = detect.apparmor_profiles()
    if loaded is None:
        return "AppArmor's profiles cannot be seen: /sys/kernel/security is not mounted"
    text = apparmor_profile.text(engine=detect.apparmor_current() or "unconfined")
    digest = hashlib.sha256(text.encode()).hexdigest()
    note = run / _NOTE
    if apparmor_profile.NAME in loaded and _noted(note) == digest:
        return ""
    failure = _parse(text)
    if failure:
        return f"the AppArmor profile {apparmor_profile.NAME} is not loaded: {failure}"
    note.write_text(digest)
    return ""


def _noted(note: Path) -> str:
    try:
        return note.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def _parse(text: str) -> str:
    """Compile and load; what the parser had against it."""
    environment = {"PATH": f"{_PLACES}:{os.environ.get('PATH', '')}", "LANG": "C.UTF-8"}
    try:
        done = subprocess.run(
            ["apparmor_parser", "--replace", "--skip-cache"],
            input=text,
            capture_output=True,
            text=True,
            env=environment,
            timeout=_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        return "apparmor_parser is not installed (package apparmor)"
    except subprocess.TimeoutExpired:
        return f"apparmor_parser did not end in {_SECONDS:.0f} seconds"
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return f"apparmor_parser failed: {lines[-1] if lines else done.returncode}"
    return ""
