"""Hostile archives, and what they must not change: for the statements I11 and I15."""

from __future__ import annotations

import json
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import leaks
from harness.engine import PrivateEngine
from harness.layers import Member, digest

UP = "../" * 12
SECRET = "only the host may read this"
SECONDS = 20.0  # that one archive may take
MIB = 1 << 20
BOOKS = {"audit", "engine.log", "seccomp"}  # with the database: what an engine writes at any time

# name of the row: the vulnerabilities it stands for, what the layer holds
REFUSED: dict[str, tuple[str, tuple[Member, ...]]] = {
    "a name that climbs": ("CVE-2014-9356", ((f"{UP}CANARY/secret", "evil"),)),
    "a name that climbs later": ("CVE-2014-9356", (("a/../../../CANARY/x", "evil"),)),
    "a name of two dots": ("CVE-2014-9356", (("..", "dir", {"mode": 0o777}),)),
    "a climbing name by pax": (
        "CVE-2014-9356",
        (("f", "evil", {"pax_headers": {"path": f"{UP}CANARY/secret"}}),),
    ),
    "a hard link out": (
        "CVE-2021-32760",
        (("l", "hard", f"{UP}CANARY/secret", {"mode": 0o777}), ("l", "evil")),
    ),
    "a hard link to an absolute name": ("CVE-2021-32760", (("l", "hard", "/CANARY/secret"),)),
    "a hard link through a link": (
        "CVE-2021-32760",
        (("out", "link", "/CANARY"), ("l", "hard", "out/secret", {"mode": 0o777})),
    ),
    "a hard link to a directory": ("", (("d", "dir"), ("l", "hard", "d"))),
    "a hard link to itself": ("", (("l", "x"), ("l", "hard", "l"))),
    "a whiteout of the parent": ("CVE-2025-47290", (("a", "dir"), ("a/.wh...", ""))),
    "a whiteout that climbs": ("CVE-2025-47290", ((f"{UP}CANARY/.wh.secret", ""),)),
    "a whiteout of nothing": ("", (("a/.wh.", ""),)),
    "a link in place of the root": ("CVE-2014-9356", (("./", "link", "/CANARY"),)),
    "a file in place of the root": ("", ((".", "evil"),)),
    "a file below a file": ("", (("a", "x"), ("a/b", "y"))),
    "a file below a device": ("", (("n", "char", {"devmajor": 1, "devminor": 3}), ("n/x", "y"))),
    "a name that is too long": ("", (("n" * 256, "x"),)),
    "a path that is too long": ("", (("d/" * 3000 + "f", "x"),)),
    "a header without end": ("", (("f", "x", {"pax_headers": {"comment": "v" * 2 * MIB}}),)),
    "a size that is a lie": ("", (("f", "x", {"pax_headers": {"size": "1000000000000"}}),)),
    "an owner out of range": ("", (("f", "x", {"uid": 2**32}),)),
    "links in a circle": ("", (("a", "link", "b"), ("b", "link", "a"), ("a/x", "y"))),
}

HARMLESS: dict[str, tuple[str, tuple[Member, ...]]] = {
    "an absolute name": ("CVE-2014-9356", (("/CANARY/secret", "mine"),)),
    "an absolute name by pax": (
        "CVE-2014-9356",
        (("f", "mine", {"pax_headers": {"path": "/CANARY/secret"}}),),
    ),
    "a link out, written through": (
        "CVE-2014-9356",
        (("out", "link", "/CANARY"), ("CANARY", "dir"), ("out/secret", "mine")),
    ),
    "a link that climbs, written through": (
        "CVE-2014-9356",
        (("out", "link", f"{UP}CANARY"), ("CANARY", "dir"), ("out/secret", "mine")),
    ),
    "a link to a file, replaced": (
        "CVE-2021-32760",
        (("l", "link", "/CANARY/secret"), ("l", "mine")),
    ),
    "facts of a link": (
        "CVE-2021-32760",
        (("l", "link", "/CANARY/secret", {"uid": 5, "mtime": 1, "mode": 0o666}),),
    ),
    "a hard link to a link": (
        "CVE-2021-32760",
        (("l", "link", "/CANARY/secret"), ("h", "hard", "l"), ("h", "mine", {"mode": 0o666})),
    ),
    "a directory over a link": (
        "CVE-2021-32760",
        (("d", "link", "/CANARY"), ("d", "dir", {"mode": 0o777, "uid": 1}), ("d/secret", "mine")),
    ),
    "a whiteout through a link": (
        "CVE-2025-47290",
        (("out", "link", "/CANARY"), ("CANARY", "dir"), ("out/.wh.secret", "")),
    ),
    "an opaque mark through a link": (
        "CVE-2025-47290",
        (("out", "link", "/CANARY"), ("CANARY", "dir"), ("out/.wh..wh..opq", "")),
    ),
    "a directory that becomes a link": (
        "CVE-2025-47290",
        (("d", "dir"), ("d/a", "1"), ("d", "link", "/CANARY"), ("CANARY", "dir"), ("d/b", "2")),
    ),
    "every type under one name": (
        "",
        (
            *(("n", "dir"), ("n/a", "1"), ("n", "x"), ("n", "link", "/CANARY"), ("n", "fifo")),
            *(("n", "block", {"devmajor": 8}), ("n", "char", {"devmajor": 1}), ("n", "last")),
        ),
    ),
    "the disk and the memory as devices": (
        "",
        (
            ("sda", "block", {"devmajor": 8, "mode": 0o666}),
            ("mem", "char", {"devmajor": 1, "devminor": 1, "mode": 0o666}),
        ),
    ),
    "a deep tree": ("", (("d/" * 1900 + "f", "x"),)),
}

# Rows that a careless program unpacks to the harm of its host.
BITING = (
    *(REFUSED[n] for n in ("a name that climbs", "a climbing name by pax", "a hard link out")),
    *(HARMLESS[n] for n in ("an absolute name", "a link out, written through")),
    HARMLESS["a link that climbs, written through"],
)


def make_canary(tree: Path) -> Path:
    (tree / "directory").mkdir(parents=True)
    (tree / "secret").write_text(SECRET)
    (tree / "secret").chmod(0o600)
    return tree


def fingerprint(top: Path, excluded: str = "") -> dict[str, Any]:
    """Return all metadata of a tree. A file's content cannot change without its ctime.

    The engine's own files, and names that contain ``excluded``, are left out.
    """
    result: dict[str, Any] = {}
    for path in [top, *sorted(top.rglob("*"))]:
        if path.name.startswith("jaula.db") or BOOKS & set(path.parts):
            continue
        if excluded and excluded in str(path):
            continue
        facts = path.lstat()
        content = ""
        kept: tuple[int, ...] = (facts.st_mode, facts.st_uid, facts.st_gid, facts.st_rdev)
        if not stat.S_ISDIR(facts.st_mode):
            kept += (facts.st_nlink, facts.st_size)
            if path.name == "index.json":  # rewritten with the same content
                content = digest(path.read_bytes())
            else:
                kept += (facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns)
        names = os.listxattr(path, follow_symlinks=False)
        result[str(path)] = (kept, content, names)
    return result


@contextmanager
def canary_tree(engine: PrivateEngine, image: str) -> Iterator[Path]:
    """Yield a tree next to the engine's root; it, the engine's files and mounts must not change."""
    tree = make_canary(engine.root / "canary")
    before, mounts = fingerprint(engine.root), leaks.mounts(engine)
    try:
        yield tree
        assert fingerprint(engine.root) == before
        assert leaks.mounts(engine) == mounts
        assert engine.request("GET", f"/images/{image}/json").status == 200
        assert "Traceback" not in engine.log.read_text()
    finally:
        shutil.rmtree(tree)


def load(engine: PrivateEngine, data: bytes) -> str:
    """Return the engine's error, in time, or '' if it loaded the image."""
    begin = time.monotonic()
    reply = engine.request("POST", "/images/load", data, headers={"Content-Type": "x-tar"})
    assert time.monotonic() - begin < SECONDS
    return error_of(engine, reply.body)


def error_of(engine: PrivateEngine, body: bytes) -> str:
    """Return the one error of a response, or '' if the image was loaded."""
    messages = [json.loads(line) for line in body.splitlines() if line.strip()]
    errors = [message.get("error") or message.get("message") for message in messages]
    errors = [error for error in errors if error]
    assert len(errors) <= 1
    if not errors:
        assert "Loaded image" in str(messages[-1])
        return ""
    (text,) = errors
    assert text.isprintable()
    assert 10 < len(text) < 1000
    assert f"{engine.root}/lib" not in text
    return str(text)
