"""The tour from its first to its last step."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

from jaula.features.demo.method import Method
from jaula.features.demo.runner import StepFailed, TourRunner
from jaula.features.demo.steps import (
    archives,
    demo_capabilities,
    demo_cgroups,
    demo_host,
    demo_layers,
    demo_namespaces,
    proof,
    shell,
    users,
)

STEPS: tuple[tuple[str, Callable[[TourRunner], None]], ...] = (
    ("The host and its engine", demo_host.show),
    ("A shell in a container", shell.show),
    ("Namespaces: what a container sees", demo_namespaces.show),
    ("Users: root inside is unprivileged outside", users.show),
    ("Cgroups: what a container may use", demo_cgroups.show),
    ("Capabilities: what its root may do", demo_capabilities.show),
    ("Copy on write: ten containers, one image", demo_layers.show),
    ("Archives: images in and out", archives.show),
    ("The proof", proof.show),
)


def run(host_address: str, *, quick: bool, method: bool, only: list[int], language: str) -> int:
    """Run the steps and return the exit status.

    ``method`` selects the tour of the method. ``only`` are the numbers of the steps to run; empty
    for all. ``language`` is one of :data:`jaula.translation.language.LANGUAGES`.
    """
    runner = TourRunner(host_address, quick=quick, language=language)
    start = time.monotonic()
    try:
        _images(runner)
        steps = Method(runner).steps() if method else STEPS
        for number, (title, step) in enumerate(steps, 1):
            if only and number not in only:
                continue
            runner.title(number, title)
            try:
                step(runner)
            except StepFailed as error:
                runner.failed(error)
            except (OSError, subprocess.TimeoutExpired) as error:
                runner.check(False, "step {number} completed ({error})", number=number, error=error)
    except StepFailed as error:
        runner.failed(error)
    finally:
        runner.clean()
    runner.line("")
    if runner.failures:
        count = len(runner.failures)
        runner.line(runner.translated("{count} checks of the tour failed:", count=count))
        for sentence in runner.failures:
            runner.line(f"  {sentence}")
        return 1
    seconds = round(time.monotonic() - start)
    runner.line(
        runner.translated("All checks of the tour passed, in {seconds} seconds.", seconds=seconds)
    )
    return 0


def _images(runner: TourRunner) -> None:
    """Build the missing images."""
    for image in dict.fromkeys((runner.image, runner.shell_image)):
        if runner.jaula("image", "inspect", image, echo=False).status == 0:
            continue
        runner.text(
            "The image {image} does not exist yet: build it from the host's package mirror.",
            image=image,
        )
        runner.command("jaula", "image", "bootstrap", image)
        done = subprocess.run(runner.arguments("image", "bootstrap", image), check=False)
        if done.returncode:
            raise StepFailed("the image {image} could be built", image=image)
