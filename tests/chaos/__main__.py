"""The command line of the campaign and of the sweep: ``./test --chaos``."""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from collections import Counter

from chaos import power
from chaos.campaign import Campaign
from chaos.churn import churn
from chaos.sweep import OPERATIONS, run_point, sweep
from chaos.target import Fault, Target, target
from harness.recorded_disk import NotPossible

NOT_POSSIBLE = 77  # exit status


def main() -> int:
    parser = argparse.ArgumentParser(prog="./test --chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="kills of the campaign")
    parser.add_argument("--seed", type=int, help="repeat the mix of an earlier campaign")
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--churn", type=float, metavar="HOURS", help="work without kills")
    parser.add_argument("--keep-going", action="store_true", help="go on after a fault")
    parser.add_argument(
        "--sweep", metavar="OPERATION", help=f"{', '.join(OPERATIONS)}, pods or all"
    )
    parser.add_argument("--role", help="sweep only this role")
    parser.add_argument("--every", type=int, default=1, help="sweep every k-th point")
    parser.add_argument("--first", type=int, default=1, help="the first point of the sweep")
    parser.add_argument("--power", type=int, metavar="CUTS", help="power failures per operation")
    parser.add_argument("--rounds", type=int, default=10, help="of the work that power ends")
    parser.add_argument("--file-system", default="ext4", help="under the engine: ext4, xfs, btrfs")
    parser.add_argument("--durability", default="strict", help="strict or relaxed")
    parser.add_argument("--point", help="one point: OPERATION/ROLE/STEP")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the target cleans up
    index = os.getpid() % 250 + 1
    seed = options.seed if options.seed is not None else random.randrange(1 << 32)
    try:
        if options.power:
            return power.campaign(
                options.power, options.rounds, seed, options.file_system, options.durability
            )
        if options.sweep:
            return _sweep(index, options)
        operation = (options.point or "").partition("/")[0]
        with target(index, pods=bool(operation) and OPERATIONS[operation].pods) as made:
            if options.point:
                result = run_point(made, *options.point.split("/"))
                print(f"{result.point} ({result.call}): {result.fault or 'holds'}")
                return 1 if result.fault else 0
            if options.churn is not None:
                return churn(made, seed, options.clients, options.churn * 3600)
            campaign = Campaign(
                made,
                seed,
                options.clients,
                keep_going=options.keep_going,
                progress=lambda text: print(text, file=sys.stderr, flush=True),
            )
            campaign.run(options.kills)
            return campaign.report()
    except Fault as fault:
        print(f"chaos: {fault}")
        return 1
    except NotPossible as reason:
        print(f"chaos: {reason}")
        return NOT_POSSIBLE


def _sweep(index: int, options: argparse.Namespace) -> int:
    names = list(OPERATIONS) if options.sweep in ("all", "pods") else [options.sweep]
    faults: list[str] = []
    points: Counter[str] = Counter()
    started = time.monotonic()
    for pods in (False, True):
        chosen = [name for name in names if OPERATIONS[name].pods is pods]
        if chosen and (pods or options.sweep != "pods"):
            with target(index, pods=pods) as made:
                _sweep_target(made, chosen, options, faults, points)
    print(f"{points.total()} points in {time.monotonic() - started:.0f} s, {len(faults)} faults")
    for role, number in points.items():
        failed = sum(text.startswith(f"{role}/") for text in faults)
        print(f"  {role}: {number} points, {failed} faults")
    return 1 if faults else 0


def _sweep_target(
    made: Target,
    names: list[str],
    options: argparse.Namespace,
    faults: list[str],
    points: Counter[str],
) -> None:
    """Sweep operations on one target; add to ``faults`` and ``points``."""
    for name in names:
        chosen = (options.role,) if options.role else OPERATIONS[name].roles
        for result in sweep(made, name, chosen, options.every, options.first):
            role = result.point.rpartition("/")[0]
            points[role] += bool(result.call)
            if result.point.endswith("/0"):
                print(f"{role}: {len(result.calls)} system calls", flush=True)
            if result.fault:
                faults.append(f"{result.point} ({result.call}): {result.fault}")
                print(faults[-1][:1000], flush=True)


if __name__ == "__main__":
    sys.exit(main())
