"""Whether an image may come in, and whether it may run: the rules of now, applied to one image.

* At a pull the rule of the name decides before a layer is fetched. Where it wants a signature, the
  registry is asked for those of the image's manifest and of the index that led to it; a mirror
  that has none is not the last word.
* When a container is made, and each time it is started, the rule of the name that was asked for
  decides again. An image that is asked for by its id may run if it may under one of its names.

The file of the rules is read again when it has changed. One that cannot be read refuses every
image, for nobody knows what it would have said.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from jaula.errors import InvalidRequest, NotAuthorized, NotFound
from jaula.images.reference import Reference, could_be_id, familiar, parse
from jaula.images.store.store import Image, ImageStore
from jaula.images.trust import signature as signatures
from jaula.images.trust.rules import TrustRule, TrustRules, Verdict
from jaula.images.trust.rules_file import RulesFile
from jaula.images.trust.signature import UnsignedImage, VerifiedSignature
from jaula.images.trust.signature_store import SignatureStore, StoredSignature

if TYPE_CHECKING:
    from jaula.images.registry.cancellation import Cancellation
    from jaula.images.registry.manifest import Document
    from jaula.images.registry.repository import Repository

log = logging.getLogger("jaula.trust")


class ImageRefused(NotAuthorized):
    """The policy does not let this image in, or run."""


class ImagePolicy:
    """The rules of one engine. Methods may be called from several threads."""

    def __init__(
        self, store: ImageStore, directory: Path, path: str = "", *, required: bool = False
    ) -> None:
        """``path`` is the policy's file, empty for an engine without one.

        Raises :class:`InvalidRequest` where it cannot be read.
        """
        self._store = store
        self.evidence = SignatureStore(directory)
        self._lock = threading.Lock()
        self.follow(path, required=required)
        self.evidence.keep_only(store.manifests())

    def follow(self, path: str, *, required: bool) -> None:
        """Go by this file from now on. Raises :class:`InvalidRequest`, and goes by the former."""
        path = os.path.abspath(path) if path else ""
        file = RulesFile(path) if path else None
        rules = file.read(required=required) if file else TrustRules()
        with self._lock:
            self.path, self._required = path, required
            self._file, self._rules = file, rules
            self._error: InvalidRequest | None = None

    def rules(self) -> TrustRules:
        """The rules of now. Raises :class:`ImageRefused` where the file cannot be read."""
        with self._lock:
            if self._file is not None and self._file.changed:
                try:
                    self._rules = self._file.read(required=self._required)
                    self._error = None
                    log.info("rules about images: %s", self._rules.source or "none")
                except InvalidRequest as error:
                    self._error = error
                    log.error("no image is accepted: %s", error)
            if self._error is not None:
                raise ImageRefused(
                    f"no image is accepted while the policy cannot be read: {self._error.message}",
                    hint=self._error.hint,
                )
            return self._rules

    # -- coming in -------------------------------------------------------------------------------

    def asked(self, reference: Reference) -> None:
        """Judge a name before its registry is spoken to. Raises :class:`ImageRefused`."""
        rule = self.rules().of(reference)
        if rule.verdict is Verdict.REJECT:
            raise refusal(str(reference), rule)

    def arriving(
        self,
        sources: Sequence[Repository],
        reference: Reference,
        named: Document,
        manifest: Document,
        cancel: Cancellation,
    ) -> Callable[[], None]:
        """Judge an image that is to be pulled; what to do when it is stored.

        Raises :class:`ImageRefused`.
        """
        rule = self.rules().of(reference)
        if rule.verdict is Verdict.ACCEPT:
            return _nothing
        if rule.verdict is Verdict.REJECT:
            raise refusal(str(reference), rule)
        from jaula.images.trust import referrers

        tag = None if reference.digest else reference.tag
        documents = (manifest,) if named.digest == manifest.digest else (named, manifest)
        told = []
        for source, document in product(sources, documents):
            found = tuple(referrers.find(source, document.digest, cancel))
            index = document.data if document.is_index else b""
            evidence = StoredSignature(f"{reference.domain}/{reference.path}", found, index)
            try:
                signatures.find(found, rule.keys, document.digest, rule.claimed(reference), tag)
            except UnsignedImage as error:
                told.append(error.message)
                continue
            return lambda: self._keep(manifest.digest, evidence)
        raise refusal(str(reference), rule, "; ".join(dict.fromkeys(told)))

    def learn(self, source: Repository, manifest: str, name: str, cancel: Cancellation) -> None:
        """Keep the signatures that a registry has of an image that is here already."""
        from jaula.images.trust import referrers as trust_referrers

        reference = parse(name)
        found = tuple(trust_referrers.find(source, manifest, cancel))
        self._keep(manifest, StoredSignature(f"{reference.domain}/{reference.path}", found))

    def _keep(self, manifest: str, evidence: StoredSignature) -> None:
        self.evidence.keep(manifest, evidence)
        self.evidence.keep_only(self._store.manifests())

    def loading(self, name: str, id: str) -> None:
        """Judge an image that an archive would give this name. Raises :class:`ImageRefused`."""
        reference = parse(name)
        rule = self.rules().of(reference)
        self._judge(rule, reference, name, self._store.manifests_of(id))

    # -- running ---------------------------------------------------------------------------------

    def running(self, image: Image, asked: str) -> VerifiedSignature | None:
        """Judge an image that is to run, or to be built upon; ``asked`` is how it was named.

        The signature that counts, None where no rule wants one. Raises :class:`ImageRefused`.
        """
        rules = self.rules()
        if not rules.in_force:
            return None
        manifests = self._store.manifests_of(image.id)
        refused: ImageRefused | None = None
        for reference in names(image, asked):
            try:
                return self._judge(rules.of(reference), reference, asked, manifests)
            except ImageRefused as error:
                refused = refused or error
        if refused is not None:
            raise refused
        return self._judge(rules.general, None, asked, manifests)

    def starting(self, id: str, asked: str) -> None:
        """Judge the image with this id, which a container was made from under that name.

        Raises :class:`ImageRefused`.
        """
        rules = self.rules()
        if not rules.in_force:
            return
        try:
            self.running(self._store.resolve(id), asked)
        except NotFound:
            name = familiar(asked)
            rule = rules.general if name is None else rules.of(parse(name))
            self._judge(rule, None, asked, ())

    def _judge(
        self, rule: TrustRule, reference: Reference | None, shown: str, manifests: Iterable[str]
    ) -> VerifiedSignature | None:
        if rule.verdict is Verdict.ACCEPT:
            return None
        if rule.verdict is Verdict.REJECT:
            raise refusal(shown, rule)
        if reference is None:
            raise refusal(shown, rule, "it has no name that a signature could be for")
        reason = "none of its signatures is known here; pull it again"
        for manifest in manifests:
            try:
                return vouched(self.evidence, manifest, rule, reference)
            except UnsignedImage as error:
                reason = error.message or reason
        raise refusal(shown, rule, reason)


def vouched(
    store: SignatureStore, manifest: str, rule: TrustRule, reference: Reference
) -> VerifiedSignature:
    """The signature of a manifest, among those that are kept, that a rule wants for a name.

    Raises :class:`UnsignedImage`, with an empty message where nothing is kept.
    """
    reason = ""
    for evidence in store.of(manifest):
        try:
            return signatures.find(
                evidence.signatures,
                rule.keys,
                evidence.signed(manifest),
                rule.claimed(reference),
                None if reference.digest else reference.tag,
            )
        except UnsignedImage as error:
            reason = error.message
    raise UnsignedImage(reason)


def names(image: Image, asked: str) -> list[Reference]:
    """The names under which an image that was asked for so is judged; none where it has none."""
    name = familiar(asked)
    known = (*image.names, *image.digests)
    if name is not None and (name in known or not could_be_id(asked)):
        known = (name,)
    return [parse(text) for text in known]


def refusal(shown: str, rule: TrustRule, reason: str = "") -> ImageRefused:
    """One line: which image, which rule, why."""
    why = f": {reason}" if reason else ""
    return ImageRefused(
        f"image {shown[:300]} is refused by the image policy, rule {rule}{why}",
        hint="see jaula trust policy",
    )


def _nothing() -> None:
    return
