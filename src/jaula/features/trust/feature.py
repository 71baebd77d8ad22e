"""The feature ``trust``: signatures, the image policy and SBOM."""

from __future__ import annotations

from jaula.feature import Feature

FEATURE = Feature(
    "trust",
    image_policy="signature_policy:open_policy",
    checks=("checks.image_policy",),
    host_checks=("checks.host_image_policy",),
    idle=("signature_policy", "signature_store", "signature", "simple_signing", "signing_keys"),
    commands={
        "image sbom": "cli.image_sbom",
        "image sign": "cli.trust_sign",
        "image verify": "cli.image_verify",
        "trust generate-key": "cli.trust_generate_key",
        "trust inspect": "cli.trust_inspect",
        "trust policy": "cli.trust_policy",
        "trust sign": "cli.trust_sign",
        "trust verify": "cli.trust_verify",
    },
    groups={
        "trust": "Manage trust on images (keys, signatures, policy)",
    },
    routes={
        "jaula/policy": ("routes",),
        "jaula/sbom": ("routes",),
        "jaula/signatures": ("routes",),
    },
)
