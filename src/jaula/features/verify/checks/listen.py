"""Listen list: the rules of the container are loaded, and its addresses lead to them.

Evidence: ``nft -j list ruleset``, compared as for :mod:`jaula.features.verify.checks.egress`.
"""

from __future__ import annotations

from collections.abc import Iterator

from jaula.features.verify.checks.egress import Lists, check_lists
from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Result
from jaula.network.firewall import listen_rules

INFO = CheckInfo(
    id="listen",
    layer="network",
    title="Listen list",
    reason="A compromised program cannot offer a service at another port, such as a remote shell.",
    references=("nft(8)",),
    evidence="nft -j list ruleset",
    advice="restart the engine, and find the program that edits the engine's tables",
)

_LISTEN = Lists(
    "Listen", "port", listen_rules.SUFFIX, frozenset({"forward", "output"}),
    listen_rules.tables, listen_rules.chain,
)  # fmt: skip


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield one row; none for a container without a list."""
    return check_lists(container, INFO, _LISTEN)
