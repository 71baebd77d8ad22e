"""Step 8: images and containers as archives, exported and imported."""

from __future__ import annotations

import shutil
import subprocess
import tarfile

from jaula.features.demo.runner import TourRunner


def show(tour: TourRunner) -> None:
    """Save, remove, load, export, import, tag, history."""
    image_id = tour.jaula("images", "-q", "--no-trunc", tour.image).output.split()[:1]
    tagged = tour.own_image("copy")
    tour.check(tour.jaula("tag", tour.image, tagged).status == 0, "the image has a second name")
    archive = tour.scratch / "image.tar"
    saved = tour.jaula("save", "-o", str(archive), tagged)
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
        inspected = subprocess.run(
            ["skopeo", "inspect", "--format", "{{.Os}} {{.Layers}}", f"oci-archive:{archive}"],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        tour.show(inspected.stdout + inspected.stderr)
        tour.check(inspected.returncode == 0, "skopeo reads it")
    tour.check(tour.jaula("rmi", tagged).status == 0, "the name is gone")
    loaded = tour.jaula("load", "-i", str(archive))
    tour.check(tagged in loaded.output, "and it is loaded from the archive again")
    after = tour.jaula("images", "-q", "--no-trunc", tagged).output.split()[:1]
    tour.check(after == image_id and after, "with the same image ID")
    tour.text("A container's filesystem, flattened to an image:")
    work = tour.name("work")
    tour.jaula("run", "--name", work, tour.image, "sh", "-c", "echo made-inside > /note")
    tree = tour.scratch / "tree.tar"
    tour.check(tour.jaula("export", "-o", str(tree), work).status == 0, "exported")
    flat = tour.own_image("flat")
    imported = tour.jaula("import", "-c", 'CMD ["cat","/note"]', str(tree), flat)
    tour.check(imported.status == 0, "imported")
    tour.check(tour.jaula("run", "--rm", flat).output.strip() == "made-inside", "and it runs")
    tour.check(tour.jaula("history", flat).status == 0, "history shows its steps")
    tour.jaula("images")
