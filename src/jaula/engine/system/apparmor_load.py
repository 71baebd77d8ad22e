"""Load the engine's own AppArmor profile into the kernel.

apparmor_parser(8) is the only compiler of profiles and takes a quarter of a second. So it runs only
if the kernel does not have the profile, whose name depends on its text. A loaded profile is never
replaced or removed: containers of another engine may run under it, and those that a former version
of this engine has started.
"""

from __future__ import annotations

import os
import subprocess

from jaula.security.lsm import apparmor_profile, detect

_SEARCH_PATH = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin"
_TIMEOUT = 60.0  # seconds


def load(name: str) -> str:
    """Load the profile if the kernel does not have it; return why that failed, or ''.

    ``name`` is the kernel's name of the profile of this process's containers.
    """
    if not detect.apparmor():
        return ""
    loaded = detect.apparmor_profiles()
    if loaded is None:
        return "AppArmor's profiles cannot be read: /sys/kernel/security is not mounted"
    if name in loaded:
        return ""
    failure = _parse(apparmor_profile.text(name, engine=detect.apparmor_current()))
    if failure and name not in (detect.apparmor_profiles() or ()):  # no other engine has loaded it
        return f"the AppArmor profile {name} is not loaded: {failure}"
    return ""


def _parse(text: str) -> str:
    """Compile and load a profile; return the parser's error, or ''."""
    environment = {"PATH": f"{_SEARCH_PATH}:{os.environ.get('PATH', '')}", "LANG": "C.UTF-8"}
    try:
        done = subprocess.run(
            ["apparmor_parser", "--add", "--skip-cache"],
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
