"""Image archives with handmade layers, entry by entry."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

KINDS = {
    "dir": tarfile.DIRTYPE,
    "link": tarfile.SYMTYPE,
    "hard": tarfile.LNKTYPE,
    "char": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
    "fifo": tarfile.FIFOTYPE,
}

Member = tuple[object, ...]  # name, content; name, kind, target; and a dict of header fields


def layer(members: Sequence[Member], canary: Path | None = None) -> bytes:
    """Return a tar of the members.

    ``CANARY`` in a text is replaced by the canary's path without its first slash.
    """
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            facts, words = {}, []
            for word in member:
                if isinstance(word, dict):
                    facts = {k: _placed(v, canary) for k, v in word.items()}
                else:
                    words.append(_placed(word, canary))
            info = tarfile.TarInfo(str(words[0]))
            info.mode, info.mtime = 0o644, 1_700_000_000
            content = b""
            if words[1] in KINDS:
                info.type = KINDS[str(words[1])]
                info.linkname = str(words[2]) if len(words) > 2 else ""
            else:
                content = words[1] if isinstance(words[1], bytes) else str(words[1]).encode()
            info.size = len(content)
            for key, value in facts.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def _placed(value: object, canary: Path | None) -> object:
    if isinstance(value, str) and canary is not None:
        return value.replace("CANARY", str(canary)[1:])
    if isinstance(value, dict):
        return {k: _placed(v, canary) for k, v in value.items()}
    return value


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def image(name: str, *layers: tuple[bytes, str], copies: int = 1) -> bytes:
    """Return an archive as ``docker save`` writes it, from stored layers and their diff ids."""
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/nothing"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]},
    }
    files = {f"{n}/layer.tar": data for n, (data, _) in enumerate(layers)}
    entry = {"Config": "c.json", "RepoTags": [name], "Layers": list(files)}
    files["c.json"] = json.dumps(config).encode()
    files["manifest.json"] = json.dumps([entry] * copies).encode()
    return layer(list(files.items()))
