"""Step 9: verification of the isolation from the kernel's own evidence."""

from __future__ import annotations

from jaula.features.demo.runner import TourRunner


def show(tour: TourRunner) -> None:
    """Verify a default container, and one with a relaxed setting."""
    name = tour.start("proved", "-m", "64mb")
    proof = tour.jaula("verify", name)
    tour.check(proof.status == 0 and "holds" in proof.output, "every row holds")
    tour.check(proof.status == 0 and "FAILS" not in proof.output, "none fails")
    tour.text("A requested relaxation is reported as such:")
    relaxed_name = tour.start("relaxed", "--security-opt", "seccomp=unconfined")
    relaxed = tour.jaula("verify", relaxed_name, show_output=False)
    rows = relaxed.output.splitlines()
    tour.show("\n".join(row for row in rows if not row.endswith("holds") or "rows:" in row))
    tour.check(relaxed.status == 0 and "relaxed" in relaxed.output, "verify reports it")
