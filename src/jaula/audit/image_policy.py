"""The rules about images, and what is known of one image, read from the files that say so.

The engine is asked only where these files are. Manifests are read from the image layout and
compared with their digests, signatures are verified anew, so an engine that runs what its own
policy refuses is found out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from jaula.errors import InvalidRequest
from jaula.images.reference import could_be_id, parse
from jaula.images.store.blobs import hex_of
from jaula.images.trust.policy import RulesFile, TrustRule, TrustRules, Verdict, verify_stored
from jaula.images.trust.signature import UnsignedImage
from jaula.images.trust.signature_store import SignatureStore
from jaula.spec.image import MANIFESTS, Index, Manifest, decode


class ImageRules:
    """Where an engine's rules are; ``told`` is what it answers about its policy."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self.path = str(told.get("Path") or "")
        self._evidence = Path(str(told.get("Evidence") or "/nonexistent"))
        self._layout = self._evidence.parent / "images"

    @cached_property
    def rules(self) -> TrustRules:
        """The rules as they are in the file. Raises :class:`InvalidRequest`."""
        return RulesFile(self.path).read(required=False) if self.path else TrustRules()

    def rule_of(self, asked: str, rules: TrustRules) -> TrustRule:
        """The rule for a container's image; the general one where it was named by its id."""
        try:
            return rules.general if could_be_id(asked) else rules.of(parse(asked))
        except InvalidRequest:
            return rules.general

    def judged(self, rule: TrustRule, asked: str, id: str) -> tuple[bool, str, str]:
        """Whether an image is as the rule wants it, in words, and which file says so."""
        if rule.verdict is not Verdict.SIGNED_BY:
            return rule.verdict is Verdict.ACCEPT, str(rule.verdict), self.path
        store, reason = SignatureStore(self._evidence), "no signature of it is kept"
        reference = parse(asked)
        for manifest in self._manifests(id):
            try:
                found = verify_stored(store, manifest, rule, reference)
            except UnsignedImage as error:
                reason = error.message or reason
                continue
            told = f"{manifest[:19]}... signed by {found.key} (sha256:{found.fingerprint[:12]}...)"
            return True, told, str(store.path(manifest))
        return False, reason, str(self._evidence)

    def _manifests(self, id: str) -> list[str]:
        """Digests of the manifests that lead to a configuration."""
        return [manifest for manifest, config in self._configurations.items() if config == id]

    @cached_property
    def _configurations(self) -> dict[str, str]:
        """Of each manifest, compared with its digest, the digest of its configuration."""
        data = (self._layout / "index.json").read_bytes()
        listed = decode(data, Index, "the index of images").manifests
        found = {}
        for digest in dict.fromkeys(d.digest for d in listed if d.media_type in MANIFESTS):
            try:
                blob = (self._layout / "blobs" / "sha256" / hex_of(digest)).read_bytes()
            except FileNotFoundError:
                continue
            if "sha256:" + hashlib.sha256(blob).hexdigest() == digest:
                found[digest] = decode(blob, Manifest, f"manifest {digest}").config.digest
        return found
