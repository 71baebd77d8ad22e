"""Step 9: the engine proves its isolation from the kernel's own evidence."""

from __future__ import annotations

from jaula.demo.runner import TourRunner


def show(guide: TourRunner) -> None:
    """Verify a container as it is by default, and one that was relaxed."""
    name = guide.start("proved", "-m", "64mb")
    proof = guide.jaula("verify", name)
    guide.must(proof.status == 0 and "holds" in proof.output, "every row holds")
    guide.must(proof.status == 0 and "FAILS" not in proof.output, "none fails")
    guide.say("A relaxation that was asked for is told as one:")
    loose = guide.start("relaxed", "--security-opt", "seccomp=unconfined")
    relaxed = guide.jaula("verify", loose, shown=False)
    rows = relaxed.output.splitlines()
    guide.show("\n".join(row for row in rows if not row.endswith("holds") or "rows:" in row))
    guide.must(relaxed.status == 0 and "relaxed" in relaxed.output, "verify names it")
