"""The tour from its beginning to its end."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

from jaula.demo.runner import StepFailed, TourRunner
from jaula.demo.steps import (
    archives,
    capabilities,
    cgroups,
    host,
    layers,
    namespaces,
    proof,
    shell,
    users,
)

STEPS: tuple[tuple[str, Callable[[TourRunner], None]], ...] = (
    ("The host and its engine", host.show),
    ("A shell in a container", shell.show),
    ("Namespaces: what a container sees", namespaces.show),
    ("Users: root inside is nobody outside", users.show),
    ("Cgroups: what a container may use", cgroups.show),
    ("Capabilities: what its root may do", capabilities.show),
    ("Copy on write: ten containers, one image", layers.show),
    ("Archives: images in and out", archives.show),
    ("The proof", proof.show),
)


def walk(host_address: str, *, quick: bool, only: list[int]) -> int:
    """Take the steps; the exit status."""
    guide = TourRunner(host_address, quick=quick)
    began = time.monotonic()
    try:
        _images(guide)
        for number, (title, step) in enumerate(STEPS, 1):
            if only and number not in only:
                continue
            guide.title(number, title)
            try:
                step(guide)
            except (StepFailed, OSError, subprocess.TimeoutExpired) as error:
                guide.must(False, f"step {number} went to its end ({error})")
    except StepFailed as error:
        guide.must(False, str(error))
    finally:
        guide.clean()
    guide.line("")
    if guide.failures:
        guide.line(f"The tour did not show {len(guide.failures)} of the things that it is for:")
        for sentence in guide.failures:
            guide.line(f"  {sentence}")
        return 1
    guide.line(f"The tour showed everything, in {time.monotonic() - began:.0f} seconds.")
    return 0


def _images(guide: TourRunner) -> None:
    """Make the images that are missing."""
    for image in dict.fromkeys((guide.image, guide.shell_image)):
        if guide.jaula("image", "inspect", image, told=False).status == 0:
            continue
        guide.say(f"There is no image {image} yet: it is made from the host's package mirror.")
        guide.command("jaula", "image", "bootstrap", image)
        done = subprocess.run(guide.arguments("image", "bootstrap", image), check=False)
        if done.returncode:
            raise StepFailed(f"the image {image} was made")
