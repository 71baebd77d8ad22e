"""Documents of TOML that take a careless parser much time or memory."""

from __future__ import annotations

HOSTILE = {
    "dots": "a" + ".a" * 300_000 + " = 1\n",
    "quoted": '"a"' + '."a"' * 200_000 + " = 1\n",
    "header": "[" + "a." * 300_000 + "a]\n",
    "parts": "".join(f"a{n}.b.c.d.e.f.g.h = 1\n" for n in range(30_000)),
    "nested": "a = " + "[" * 500_000 + "\n",
    "number": "a = " + "9" * 900_000 + "\n",
}
