"""A profile as an AppArmor profile. Pure.

Source: apparmor.d(5). Paths are quoted, and characters of patterns are escaped. A program that is
executed keeps the profile (``ix``). Files that are read may be mapped for execution, since a
library is one of them.

Facts about paths: AppArmor compares the path of a file after symbolic links. So the loader, which
programs name by a link, has a pattern.

Facts about quotes: the parser's longest match takes a backslash before the last quote for an escape
of it, an escaped backslash too, and goes on to the quote of a later rule.
"""

from __future__ import annotations

from collections.abc import Iterator

from jaula.features.harden.formats import needs
from jaula.spec.confinement_profile import Profile

_PATTERN = set('*?[]{},^"\\@$')
_LOADER = '"/{usr/,}lib{,32,64}/{,**/}ld-*.so*" rmix,'


def pattern(path: str) -> str:
    """Return a quoted pattern that matches a path; one that ends with / includes what is below."""
    escaped = "".join(_escaped(each) for each in path)
    if path.endswith("\\"):
        escaped = escaped[:-2] + "\\134"
    return f'"{escaped}{"{,**}" if path.endswith("/") else ""}"'


def _escaped(each: str) -> str:
    if each in _PATTERN:
        return "\\" + each
    if each.isprintable():
        return each
    return "".join(f"\\{byte:03o}" for byte in each.encode())


def profile_name(profile: Profile) -> str:
    """Return the name of the AppArmor profile."""
    return f"jaula-{profile.name}"


def render(profile: Profile) -> str:
    """Return the profile.

    :raises InvalidRequest: when a value of it is not valid.
    """
    profile = needs.checked(profile)
    cannot = (needs.DESTINATIONS, "system calls, mounts and limits (use another form with it)")
    name = profile_name(profile)
    lines = list(
        needs.comments(profile, f"The least that {profile.name} needs, for AppArmor.", cannot)
    )
    lines.append(f"# Load it with apparmor_parser -r FILE; use --security-opt apparmor={name}.")
    lines += ["abi <abi/3.0>,", "include <tunables/global>", ""]
    lines.append(f"profile {name} flags=(attach_disconnected,mediate_deleted) {{")
    lines += [f"  {line}" if line else "" for line in _rules(profile)]
    lines.append("}")
    return "\n".join(lines) + "\n"


def _rules(profile: Profile) -> Iterator[str]:
    files = profile.files
    yield from (f"capability {name.lower()}," for name in needs.capabilities(profile))
    yield "network unix,"
    if profile.network.mode != "none":
        yield from (f"network {family}," for family in ("inet", "inet6", "netlink"))
    yield "unix,"
    yield "signal (send, receive) peer=@{profile_name},"
    yield "signal (receive) peer=unconfined,"
    yield "deny mount,"
    yield "deny umount,"
    yield "deny pivot_root,"
    yield "deny ptrace,"
    yield ""
    if not (files.read or files.execute):
        yield '"/{,**}" rmix,'
    else:
        yield from (f"{pattern(path)} rmix," for path in files.execute)
        if any("/ld-" in path for path in files.execute):
            yield _LOADER
        for path in files.read:
            yield f"{pattern(path)} rm,"
    yield from (f"{pattern(path)} rwkl," for path in files.write)
    yield from (f'deny {pattern(path)[:-1]}{{,/**}}" rwklx,' for path in files.masked)
