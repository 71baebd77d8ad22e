"""Licence names of SPDX. Pure.

Source: spdx.org/licenses. A text that consists only of these names is an expression. Any other
licence text of a package is quoted, not interpreted.
"""

from __future__ import annotations

import re

KNOWN = frozenset(
    {
        "0BSD", "AFL-2.1", "AGPL-3.0-only", "AGPL-3.0-or-later", "Apache-2.0",
        "Artistic-1.0-Perl", "Artistic-2.0", "BlueOak-1.0.0", "BSD-2-Clause", "BSD-3-Clause",
        "BSD-4-Clause", "BSL-1.0", "bzip2-1.0.6", "CC-BY-3.0", "CC-BY-4.0", "CC0-1.0",
        "CDDL-1.0", "curl", "EPL-1.0", "EPL-2.0", "GFDL-1.3-or-later", "GPL-1.0-or-later",
        "GPL-2.0-only", "GPL-2.0-or-later", "GPL-3.0-only", "GPL-3.0-or-later", "HPND", "ISC",
        "LGPL-2.0-or-later", "LGPL-2.1-only", "LGPL-2.1-or-later", "LGPL-3.0-only",
        "LGPL-3.0-or-later", "MIT", "MIT-0", "MPL-1.1", "MPL-2.0", "NCSA", "OFL-1.1", "OpenSSL",
        "PSF-2.0", "Python-2.0", "Ruby", "SSPL-1.0", "TCL", "Unicode-3.0", "Unlicense", "Vim",
        "W3C", "WTFPL", "X11", "Zlib", "ZPL-2.1",
    }
)  # fmt: skip
_TOKEN = re.compile(r"[()]|[^\s()]+")


def is_expression(text: str) -> bool:
    """Return whether ``text`` is an SPDX expression of the licences in :data:`KNOWN`.

    An expression joins names by AND and OR, with or without parentheses.
    """
    depth, expects_name = 0, True
    for token in _TOKEN.findall(text):
        if token == "(" and expects_name:
            depth += 1
        elif token == ")" and not expects_name and depth:
            depth -= 1
        elif token in ("AND", "OR") and not expects_name:
            expects_name = True
        elif token in KNOWN and expects_name:
            expects_name = False
        else:
            return False
    return not expects_name and depth == 0
