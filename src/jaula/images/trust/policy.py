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
    """The policy refuses to pull or to run this image."""


class ImagePolicy:
    """The image policy of one engine. Methods may be called from several threads."""

    def __init__(
        self, store: ImageStore, directory: Path, path: str = "", *, required: bool = False
    ) -> None:
        """Load the policy file ``path``, empty for an engine without a policy.

        :raises InvalidRequest: if the file cannot be read.
        """
        self._store = store
        self.evidence = SignatureStore(directory)
        self._lock = threading.Lock()
        self.follow(path, required=required)
        self.evidence.keep_only(store.manifests())

    def follow(self, path: str, *, required: bool) -> None:
        """Use another policy file from now on.

        :raises InvalidRequest: if it cannot be read. The former file stays in force then.
        """
        path = os.path.abspath(path) if path else ""
        file = RulesFile(path) if path else None
        rules = file.read(required=required) if file else TrustRules()
        with self._lock:
            self.path, self._required = path, required
            self._file, self._rules = file, rules
            self._error: InvalidRequest | None = None

    def rules(self) -> TrustRules:
        """Return the current rules; the file is read again if it has changed.

        :raises ImageRefused: if the file cannot be read.
        """
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

    # -- pull and load ---------------------------------------------------------------------------

    def asked(self, reference: Reference) -> None:
        """Check a name before its registry is contacted.

        :raises ImageRefused: if its rule rejects it.
        """
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
        """Check an image that is to be pulled and return the action for when it is stored.

        ``named`` is the document that the reference resolves to, possibly an index that lists
        ``manifest``. The action stores the signatures.

        :raises ImageRefused: if the policy refuses the image.
        """
        rule = self.rules().of(reference)
        if rule.verdict is Verdict.ACCEPT:
            return _nothing
        if rule.verdict is Verdict.REJECT:
            raise refusal(str(reference), rule)
        from jaula.images.trust import referrers

        tag = None if reference.digest else reference.tag
        documents = (manifest,) if named.digest == manifest.digest else (named, manifest)
        reasons = []
        for source, document in product(sources, documents):
            fetched = tuple(referrers.find(source, document.digest, cancel))
            index = document.data if document.is_index else b""
            stored = StoredSignature(f"{reference.domain}/{reference.path}", fetched, index)
            try:
                signatures.find(fetched, rule.keys, document.digest, rule.claimed(reference), tag)
            except UnsignedImage as error:
                reasons.append(error.message)
                continue
            return lambda: self._keep(manifest.digest, stored)
        raise refusal(str(reference), rule, "; ".join(dict.fromkeys(reasons)))

    def learn(self, source: Repository, manifest: str, name: str, cancel: Cancellation) -> None:
        """Store the signatures that a registry has for an image that is already stored."""
        from jaula.images.trust import referrers

        reference = parse(name)
        fetched = tuple(referrers.find(source, manifest, cancel))
        self._keep(manifest, StoredSignature(f"{reference.domain}/{reference.path}", fetched))

    def _keep(self, manifest: str, stored: StoredSignature) -> None:
        self.evidence.keep(manifest, stored)
        self.evidence.keep_only(self._store.manifests())

    def loading(self, name: str, id: str) -> None:
        """Check an image that an archive would give this name.

        :raises ImageRefused: if the policy refuses it.
        """
        reference = parse(name)
        rule = self.rules().of(reference)
        self._check(rule, reference, name, self._store.manifests_of(id))

    # -- create and start ------------------------------------------------------------------------

    def running(self, image: Image, asked: str) -> VerifiedSignature | None:
        """Check an image that is to run or to be the base of a build.

        ``asked`` is the reference in the request. Return the signature that the rule accepted, or
        None if no rule requires one.

        :raises ImageRefused: if the policy refuses the image.
        """
        rules = self.rules()
        if not rules.in_force:
            return None
        manifests = self._store.manifests_of(image.id)
        refused: ImageRefused | None = None
        for reference in names(image, asked):
            try:
                return self._check(rules.of(reference), reference, asked, manifests)
            except ImageRefused as error:
                refused = refused or error
        if refused is not None:
            raise refused
        return self._check(rules.general, None, asked, manifests)

    def starting(self, id: str, asked: str) -> None:
        """Check the image of a container at its start.

        ``id`` is the image's id, ``asked`` the reference that the container was created with.

        :raises ImageRefused: if the policy refuses the image.
        """
        rules = self.rules()
        if not rules.in_force:
            return
        try:
            self.running(self._store.resolve(id), asked)
        except NotFound:
            name = familiar(asked)
            rule = rules.general if name is None else rules.of(parse(name))
            self._check(rule, None, asked, ())

    def _check(
        self, rule: TrustRule, reference: Reference | None, label: str, manifests: Iterable[str]
    ) -> VerifiedSignature | None:
        if rule.verdict is Verdict.ACCEPT:
            return None
        if rule.verdict is Verdict.REJECT:
            raise refusal(label, rule)
        if reference is None:
            raise refusal(label, rule, "it has no name that a signature could match")
        reason = "no signatures of it are stored; pull it again"
        for manifest in manifests:
            try:
                return vouched(self.evidence, manifest, rule, reference)
            except UnsignedImage as error:
                reason = error.message or reason
        raise refusal(label, rule, reason)


def vouched(
    store: SignatureStore, manifest: str, rule: TrustRule, reference: Reference
) -> VerifiedSignature:
    """Return the stored signature of a manifest that satisfies ``rule`` for ``reference``.

    :raises UnsignedImage: if none does; the message is empty if no signature is stored.
    """
    reason = ""
    for stored in store.of(manifest):
        try:
            return signatures.find(
                stored.signatures,
                rule.keys,
                stored.signed(manifest),
                rule.claimed(reference),
                None if reference.digest else reference.tag,
            )
        except UnsignedImage as error:
            reason = error.message
    raise UnsignedImage(reason)


def names(image: Image, asked: str) -> list[Reference]:
    """Return the references whose rules apply to an image requested as ``asked``."""
    name = familiar(asked)
    known = (*image.names, *image.digests)
    if name is not None and (name in known or not could_be_id(asked)):
        known = (name,)
    return [parse(text) for text in known]


def refusal(label: str, rule: TrustRule, reason: str = "") -> ImageRefused:
    """Return the error that names the image, the rule and the reason in one line."""
    why = f": {reason}" if reason else ""
    return ImageRefused(
        f"image {label[:300]} is refused by the image policy, rule {rule}{why}",
        hint="see jaula trust policy",
    )


def _nothing() -> None:
    return
