"""Step 8: images and containers as archives, out and in again."""

from __future__ import annotations

import shutil
import subprocess
import tarfile

from jaula.demo.runner import TourRunner


def show(tour: TourRunner) -> None:
    """Save, remove, load, export, import, tag, history."""
    identity = tour.jaula("images", "-q", "--no-trunc", tour.image).output.split()[:1]
    named = tour.own_image("copy")
    tour.check(tour.jaula("tag", tour.image, named).status == 0, "the image has a second name")
    archive = tour.scratch / "image.tar"
    saved = tour.jaula("save", "-o", str(archive), named)
    tour.check(saved.status == 0 and archive.stat().st_size > 10_000, "an archive was written")
    with tarfile.open(archive) as file:
        entries = file.getnames()
    tour.check(
        {"manifest.json", "index.json", "oci-layout"} <= set(entries),
        "it is a Docker archive and an OCI layout at once",
    )
    if shutil.which("skopeo"):
        tour.command(
            "skopeo", "inspect", "--format", "{{.Os}} {{.Layers}}", f"oci-archive:{archive}"
        )
        told = subprocess.run(
            ["skopeo", "inspect", "--format", "{{.Os}} {{.Layers}}", f"oci-archive:{archive}"],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        tour.show(told.stdout + told.stderr)
        tour.check(told.returncode == 0, "skopeo reads it")
    tour.check(tour.jaula("rmi", named).status == 0, "the name is gone")
    loaded = tour.jaula("load", "-i", str(archive))
    tour.check(named in loaded.output, "and back from the archive")
    after = tour.jaula("images", "-q", "--no-trunc", named).output.split()[:1]
    tour.check(after == identity and after, "with the same image ID")
    tour.text("A container's filesystem, flattened to an image:")
    work = tour.name("work")
    tour.jaula("run", "--name", work, tour.image, "sh", "-c", "echo made-inside > /note")
    tree = tour.scratch / "tree.tar"
    tour.check(tour.jaula("export", "-o", str(tree), work).status == 0, "exported")
    flat = tour.own_image("flat")
    imported = tour.jaula("import", "-c", 'CMD ["cat","/note"]', str(tree), flat)
    tour.check(imported.status == 0, "imported")
    tour.check(tour.jaula("run", "--rm", flat).output.strip() == "made-inside", "and it runs")
    tour.check(tour.jaula("history", flat).status == 0, "history tells how it came to be")
    tour.jaula("images")
