"""Step 8: images and containers as archives, out and in again."""

from __future__ import annotations

import shutil
import subprocess
import tarfile

from jaula.demo.runner import TourRunner


def show(guide: TourRunner) -> None:
    """Save, remove, load, export, import, tag, history."""
    identity = guide.jaula("images", "-q", "--no-trunc", guide.image).output.split()[:1]
    named = guide.own_image("copy")
    guide.must(guide.jaula("tag", guide.image, named).status == 0, "the image has a second name")
    archive = guide.scratch / "image.tar"
    saved = guide.jaula("save", "-o", str(archive), named)
    guide.must(saved.status == 0 and archive.stat().st_size > 10_000, "an archive was written")
    with tarfile.open(archive) as file:
        entries = file.getnames()
    guide.must(
        {"manifest.json", "index.json", "oci-layout"} <= set(entries),
        "it is a Docker archive and an OCI layout at once",
    )
    if shutil.which("skopeo"):
        guide.command(
            "skopeo", "inspect", "--format", "{{.Os}} {{.Layers}}", f"oci-archive:{archive}"
        )
        told = subprocess.run(
            ["skopeo", "inspect", "--format", "{{.Os}} {{.Layers}}", f"oci-archive:{archive}"],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        guide.show(told.stdout + told.stderr)
        guide.must(told.returncode == 0, "skopeo reads it")
    guide.must(guide.jaula("rmi", named).status == 0, "the name is gone")
    loaded = guide.jaula("load", "-i", str(archive))
    guide.must(named in loaded.output, "and back from the archive")
    after = guide.jaula("images", "-q", "--no-trunc", named).output.split()[:1]
    guide.must(after == identity and after, "with the same image ID")
    guide.say("A container's filesystem, flattened to an image:")
    work = guide.name("work")
    guide.jaula("run", "--name", work, guide.image, "sh", "-c", "echo made-inside > /note")
    tree = guide.scratch / "tree.tar"
    guide.must(guide.jaula("export", "-o", str(tree), work).status == 0, "exported")
    flat = guide.own_image("flat")
    imported = guide.jaula("import", "-c", 'CMD ["cat","/note"]', str(tree), flat)
    guide.must(imported.status == 0, "imported")
    guide.must(guide.jaula("run", "--rm", flat).output.strip() == "made-inside", "and it runs")
    guide.must(guide.jaula("history", flat).status == 0, "history tells how it came to be")
    guide.jaula("images")
