"""The table of the features: each package here, with the first words of its commands.

A package may be removed: the core then works without it, and its commands say so. A feature imports
the public modules of the core, and other features only along the edges that ``pyproject.toml`` has.
"""

from __future__ import annotations

TABLE: dict[str, tuple[str, ...]] = {
    "audit": ("audit",),
    "build": ("build", "builder"),
    "checkpoint": ("checkpoint", "clone", "rollback", "snapshot"),
    "debug": ("debug",),
    "demo": ("demo",),
    "doctor": ("check", "doctor"),
    "edit": ("edit",),
    "harden": ("harden",),
    "honeypot": (),
    "kubernetes": ("cri", "kube", "pod"),
    "lazy": (),
    "metrics": (),
    "migrate_from": ("migrate-from",),
    "migration": ("host",),
    "quadlet": ("generate",),
    "record": ("record",),
    "report": ("report",),
    "secrets": ("config", "secret"),
    "trust": ("trust",),
    "verify": ("tree", "verify"),
    "web": ("web",),
    "why": ("why",),
}

NEEDS: dict[str, tuple[str, ...]] = {
    "audit": ("trust", "verify"),
    "build": ("trust",),
    "harden": ("record",),
    "honeypot": ("record",),
    "kubernetes": ("metrics",),
    "migration": ("checkpoint", "kubernetes"),
    "report": ("audit", "record", "verify"),
    "why": ("record",),
}
"""The features without which one does not work; it counts as removed with them."""
