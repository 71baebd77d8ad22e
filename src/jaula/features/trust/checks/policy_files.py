"""Read the image policy and the evidence for an image from their files.

The engine only reports where these files are. Manifests are read from the image layout and
compared with their digests, and signatures are verified again. An engine that runs images which its
own policy refuses is therefore detected.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaula.errors import InvalidRequest
from jaula.features.trust.signature import UnsignedImage
from jaula.features.trust.signature_policy import (
    RulesFile,
    TrustRule,
    TrustRules,
    Verdict,
    verify_stored,
)
from jaula.features.trust.signature_store import SignatureStore
from jaula.features.verify.model.image_layout import ImageLayout
from jaula.images.reference import could_be_id, parse

if TYPE_CHECKING:
    from jaula.features.verify.model.host_snapshot import HostSnapshot


class ImagePolicyReader:
    """Reader of an engine's image policy; ``document`` is the engine's answer about it."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.path = str(document.get("Path") or "")
        self._evidence = Path(str(document.get("Evidence") or "/nonexistent"))
        self._layout = ImageLayout(self._evidence.parent / "images")

    @cached_property
    def rules(self) -> TrustRules:
        """The rules in the file.

        :raises InvalidRequest: when the file is not valid.
        """
        return RulesFile(self.path).read(required=False) if self.path else TrustRules()

    def rule_of(self, reference: str, rules: TrustRules) -> TrustRule:
        """Return the rule for a container's image; the general rule if it was named by id."""
        try:
            return rules.general if could_be_id(reference) else rules.of(parse(reference))
        except InvalidRequest:
            return rules.general

    def evaluate(self, rule: TrustRule, image_name: str, id: str) -> tuple[bool, str, str]:
        """Return whether an image satisfies the rule, the result in words, and the evidence."""
        if rule.verdict is not Verdict.SIGNED_BY:
            return rule.verdict is Verdict.ACCEPT, str(rule.verdict), self.path
        store, reason = SignatureStore(self._evidence), "no signature is stored"
        reference = parse(image_name)
        for manifest in self._manifests(id):
            try:
                signature = verify_stored(store, manifest, rule, reference)
            except UnsignedImage as error:
                reason = error.message or reason
                continue
            key = f"{signature.key} (sha256:{signature.fingerprint[:12]}...)"
            return True, f"{manifest[:19]}... signed by {key}", str(store.path(manifest))
        return False, reason, str(self._evidence)

    def _manifests(self, id: str) -> list[str]:
        """Return the digests of the manifests of a configuration."""
        return [m.digest for m in self._layout.manifests if m.intact and m.config == id]


def reader_of(snapshot: HostSnapshot) -> ImagePolicyReader:
    """Return the reader of the policy of the engine that a snapshot is of."""
    assert snapshot.image_policy is not None
    return ImagePolicyReader(snapshot.image_policy)
