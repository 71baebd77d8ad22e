"""Step 4: the ids of a container's root and of the files that it writes."""

from __future__ import annotations

import os
from pathlib import Path

from jaula.features.demo import kernel
from jaula.features.demo.runner import TourRunner


def show(tour: TourRunner) -> None:
    """Read the ids of two containers, and of a file on a bind mount."""
    tour.text("Two containers; each is root inside:")
    uids = []
    for word in ("one", "two"):
        name = tour.start(word)
        inside = tour.jaula("exec", name, "id", "-u")
        tour.check(inside.output.strip() == "0", "{name} runs as uid 0 inside", name=name)
        pid = tour.pid(name)
        uid = int(kernel.status(pid, "Uid")["Uid"].split()[0])
        tour.text("/proc/{pid}/status says Uid: {uid}; /proc/{pid}/uid_map says:", pid=pid, uid=uid)
        tour.show(Path(f"/proc/{pid}/uid_map").read_text())
        uids.append(uid)
    tour.check(
        all(uid >= 65536 for uid in uids), "they are unprivileged ids outside: {uids}", uids=uids
    )
    tour.check(uids[0] != uids[1], "and no two containers share them")
    shared = tour.scratch / "shared"
    shared.mkdir()
    tour.text("A file that the container's root writes to a directory of the host:")
    written = tour.jaula(
        "run", "--rm", "-v", f"{shared}:/data", tour.image, "sh", "-c",
        "echo hello > /data/file; ls -ln /data",
    )  # fmt: skip
    owner = (shared / "file").stat().st_uid if written.status == 0 else None
    file = f"{shared}/file"
    tour.show(
        tour.translated("on the host: owner of {file} is uid {owner}", file=file, owner=owner)
    )
    tour.check(owner == os.getuid(), "the file belongs to the invoking user, not to an unknown id")
