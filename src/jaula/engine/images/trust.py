"""The use cases of trust: signatures at registries, the rules about images, what is in an image.

The engine verifies for itself, at a pull and a start (:mod:`jaula.images.trust.policy`). A person's
keys never come here: the client signs, and what it made is put beside the image.
"""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any

from jaula.engine.images.registry import held_for, in_cancellable_thread
from jaula.errors import InvalidRequest
from jaula.images import reference as references
from jaula.images.reference import familiar
from jaula.images.trust.policy import ImageRefused
from jaula.spec.api import RegistryAuth, SignatureAdd
from jaula.spec.image import Descriptor

if TYPE_CHECKING:
    from jaula.engine.images.registry import RegistryService
    from jaula.engine.model.services import Services
    from jaula.images.registry.cancellation import Cancellation
    from jaula.images.registry.manifest import Document as Found
    from jaula.images.registry.repository import Repository
    from jaula.images.trust.policy import TrustRule

Document = dict[str, Any]


class TrustService:
    """Whose images run here."""

    def __init__(self, parts: Services, distribution: RegistryService) -> None:
        self._parts = parts
        self._distribution = distribution

    def policy(self, name: str) -> Document:
        """The rules in force; with a ``name`` also the one that decides about it."""
        gate = self._parts.gate
        document: Document = {
            "Path": gate.path,
            "Evidence": str(self._parts.config.paths.trust),
            "Error": "",
            "InForce": True,
            "Rules": [],
        }
        try:
            rules = gate.rules()
        except ImageRefused as error:
            return document | {"Error": str(error)}
        document["Source"], document["InForce"] = rules.source, rules.in_force
        document["Rules"] = [_shown(rule) for rule in rules.rules]
        if name:
            document["Decides"] = _shown(rules.of(references.parse(name)))
        return document

    async def signatures(self, name: str, auth: RegistryAuth | None) -> Document:
        """The descriptor of a name at its registry, and its signatures, not verified."""
        from jaula.images.trust import referrers

        def work(cancel: Cancellation) -> Document:
            source, found = self._found(name, auth, cancel)
            listed = referrers.find(source, found.digest, cancel)
            return {
                "Descriptor": _described(found),
                "Signatures": [
                    {"Payload": _encoded(s.payload), "Signature": _encoded(s.value)} for s in listed
                ],
            }

        return await in_cancellable_thread(work)

    async def sign(self, name: str, body: SignatureAdd, auth: RegistryAuth | None) -> Document:
        """Put a signature beside an image at its registry; it counts for the image here as well.

        :raises InvalidRequest: it is about another image than the one that has the name there.
        """
        from jaula.images.trust import referrers as trust_referrers
        from jaula.images.trust import simple_signing
        from jaula.images.trust.signature import Signature

        claim = simple_signing.read(body.payload)

        def work(cancel: Cancellation) -> Document:
            source, found = self._found(name, auth, cancel)
            if claim.digest != found.digest:
                raise InvalidRequest(
                    f"the signature is about {claim.digest}, and {name} is {found.digest} there",
                    hint="sign what the name means now, or name the image by its digest",
                )
            image = Descriptor(found.media_type, found.digest, len(found.data))
            made = Signature(body.payload, body.signature)
            trust_referrers.add(source, image, made, cancel, referring=body.referring)
            if found.digest in self._parts.images.manifests():
                self._parts.gate.fetch_signatures(source, found.digest, name, cancel)
            return {"Descriptor": _described(found)}

        return await in_cancellable_thread(work)

    def _found(
        self, name: str, auth: RegistryAuth | None, cancel: Cancellation
    ) -> tuple[Repository, Found]:
        from jaula.images.registry import errors

        wanted = references.parse(name)
        held = held_for(auth, wanted.domain)
        source = self._distribution.client.repository(wanted.domain, wanted.path, held, cancel)
        try:
            return source, source.manifest(wanted.digest or wanted.tag or "", cancel)
        except errors.RegistryError as error:
            raise errors.pull_error(error, wanted.repository, str(wanted)) from None

    async def sbom(self, name: str, form: str) -> Document:
        """The packages in an image, as a document of the form that is asked for.

        :raises InvalidRequest: an unknown form.
        """
        from jaula.images.sbom import formats, scan
        from jaula.storage.drivers.driver import open_root

        if form not in formats.FORMATS:
            raise InvalidRequest(
                f"unknown form {form[:40]!r}", hint=f"one of {', '.join(formats.FORMATS)}"
            )
        image = self._parts.images.resolve(name)
        called = familiar(name)
        shown = called if called in (*image.names, *image.digests) else image.id

        def work() -> Document:
            with open_root(self._parts.snapshots.view(image.layers)) as root:
                return formats.FORMATS[form](image, shown, scan.scan(root))

        return await asyncio.to_thread(work)


def _shown(rule: TrustRule) -> Document:
    return {
        "Scope": rule.scope.text,
        "Verdict": str(rule.verdict),
        "Keys": [{"Name": key.name, "Fingerprint": key.fingerprint} for key in rule.keys],
        "SignedAs": rule.signed_as,
    }


def _described(found: Found) -> Document:
    return {"mediaType": found.media_type, "digest": found.digest, "size": len(found.data)}


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
