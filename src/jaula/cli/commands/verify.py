"""``jaula verify``: the isolation that was asked for against the isolation in effect."""

from __future__ import annotations

from jaula.cli.client import Client, quote
from jaula.cli.failure import EngineError, Failure
from jaula.cli.flags import Command, Flag, Options
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Print the proof of each container named; 1 where a row of one does not hold."""
    from jaula.cli import packages

    packages.enable()
    from jaula.audit import row, verify
    from jaula.spec import runtime

    client = Client(Settings.host)
    status = 0
    for number, name in enumerate(options.arguments):
        found = client.get(f"/containers/{quote(name)}/json")
        if not found["State"]["Running"]:
            raise Failure(f"container {name} does not run: there is nothing in effect to verify")
        try:
            spec = runtime.decode(client.request("GET", f"/jaula/containers/{found['Id']}/spec"))
        except EngineError as error:
            raise Failure(
                f"the engine does not tell the container's spec: {error.reason}"
            ) from None
        rows = verify.verify(found, spec)
        if options.text("format") == "json":
            from jaula.spec.light import pretty

            print(pretty([_document(line) for line in rows]))
        else:
            if len(options.arguments) > 1:
                print(("\n" if number else "") + f"{name}:")
            print(verify.render(rows))
        if not row.passed(rows):
            status = 1
    return status


def _document(line: object) -> dict[str, str]:
    names = ("id", "layer", "requested", "effective", "evidence", "verdict")
    return {name: str(getattr(line, name)) for name in names}


COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Prove from the kernel's own evidence that the isolation asked for is in effect",
    run,
    flags=(Flag("format", "", "string", "table or json", completes=("table", "json")),),
    least=1,
    description=(
        "One row for each layer: namespaces, user mapping, cgroup limits, the five capability "
        "sets, seccomp, no_new_privs, LSM, masked paths, mounts, devices, network. Each says what "
        "was requested, what the kernel says is in effect, where it says so, and the verdict: "
        "holds, relaxed (asked to be weaker than the default), FAILS or unknown. The engine is "
        "asked only for what was requested; what is in effect is read from /proc and the cgroups."
    ),
    examples=(
        ("A container's proof", "jaula verify web"),
        ("What was relaxed", "jaula verify web | grep relaxed"),
    ),
    exit_status=(("0", "no row FAILS and none is unknown"), ("1", "a row does, or no proof")),
    see_also=("inspect", "tree", "caps", "check"),
    completes="container",
)
