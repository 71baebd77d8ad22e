"""Step 4: the ids of a container's root, and of the files that it writes."""

from __future__ import annotations

import os
from pathlib import Path

from jaula.demo import kernel
from jaula.demo.runner import TourRunner


def show(guide: TourRunner) -> None:
    """Look at two containers' ids and at a bind mount."""
    guide.say("Two containers; each is root inside:")
    found = []
    for word in ("one", "two"):
        name = guide.start(word)
        inside = guide.jaula("exec", name, "id", "-u")
        guide.must(inside.output.strip() == "0", f"{name} runs as uid 0 inside")
        pid = guide.pid(name)
        uid = int(kernel.status(pid, "Uid")["Uid"].split()[0])
        guide.say(f"/proc/{pid}/status says Uid: {uid}; /proc/{pid}/uid_map says:")
        guide.show(Path(f"/proc/{pid}/uid_map").read_text())
        found.append(uid)
    guide.must(all(uid >= 65536 for uid in found), f"they are unprivileged ids outside: {found}")
    guide.must(found[0] != found[1], "and no two containers have the same")
    shared = guide.scratch / "shared"
    shared.mkdir()
    guide.say("What the container's root writes to a directory of the host:")
    made = guide.jaula(
        "run", "--rm", "-v", f"{shared}:/data", guide.image, "sh", "-c",
        "echo hello > /data/file; ls -ln /data",
    )  # fmt: skip
    owner = (shared / "file").stat().st_uid if made.status == 0 else None
    guide.show(f"on the host: owner of {shared}/file is uid {owner}")
    guide.must(owner == os.getuid(), "the file belongs to the invoking user, not to a strange id")
