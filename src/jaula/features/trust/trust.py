"""The use cases of image trust: signatures at registries, the image policy, the SBOM.

The engine itself verifies images at a pull and at a start
(:mod:`jaula.features.trust.signature_policy`). Private keys never reach the engine: the client
signs, and the engine stores the signature next to the image.
"""

from __future__ import annotations

import base64
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from jaula.engine.images.registry_images import credentials_for, in_cancellable_thread
from jaula.engine.parsers import in_sandbox
from jaula.engine.threads import in_request_thread
from jaula.errors import InvalidRequest
from jaula.features.trust.signature_policy import image_policy
from jaula.images import reference as references
from jaula.images.policy import ImageRefused
from jaula.images.reference import familiar
from jaula.spec.api_documents import RegistryAuth, SignatureAdd
from jaula.spec.image_documents import Descriptor

if TYPE_CHECKING:
    from jaula.engine.engine import Engine
    from jaula.engine.images.registry_images import RegistryService
    from jaula.engine.model.services import Services
    from jaula.features.trust.signature_policy import TrustRule
    from jaula.images.registry.cancellation import Cancellation
    from jaula.images.registry.manifest_download import Document as Manifest
    from jaula.images.registry.repository import Repository
    from jaula.sandbox.slots import Stop

Document = dict[str, Any]


def trust(engine: Engine) -> TrustService:
    """Return the signatures and the image policy of an engine."""
    return TrustService(engine.services, engine.distribution)


class TrustService:
    """Signatures and the image policy of an engine."""

    def __init__(self, services: Services, distribution: RegistryService) -> None:
        self._services = services
        self._distribution = distribution

    def policy(self, name: str) -> Document:
        """Return the rules in force; with a ``name`` also the rule that applies to it."""
        gate = self._services.service(image_policy)
        document: Document = {
            "Path": gate.path,
            "Evidence": str(self._services.config.paths.trust),
            "Error": "",
            "InForce": True,
            "Rules": [],
        }
        try:
            rules = gate.rules()
        except ImageRefused as error:
            return document | {"Error": str(error)}
        document["Source"], document["InForce"] = rules.source, rules.in_force
        document["Rules"] = [_rule_document(rule) for rule in rules.rules]
        if name:
            document["Decides"] = _rule_document(rules.of(references.parse(name)))
        return document

    async def signatures(self, name: str, auth: RegistryAuth | None) -> Document:
        """Return the descriptor of a name at its registry, and its unverified signatures."""
        from jaula.features.trust import referrers

        def work(cancel: Cancellation) -> Document:
            source, manifest = self._manifest(name, auth, cancel)
            listed = referrers.find(source, manifest.digest, cancel)
            return {
                "Descriptor": _descriptor(manifest),
                "Signatures": [
                    {"Payload": _encoded(s.payload), "Signature": _encoded(s.value)} for s in listed
                ],
            }

        return await in_cancellable_thread(work)

    async def sign(self, name: str, body: SignatureAdd, auth: RegistryAuth | None) -> Document:
        """Store a signature at the registry of an image; it counts for the local image as well.

        :raises InvalidRequest: when it is for another image than the one of this name.
        """
        from jaula.features.trust import referrers as trust_referrers
        from jaula.features.trust import simple_signing
        from jaula.features.trust.signature import Signature

        claim = simple_signing.read(body.payload)

        def work(cancel: Cancellation) -> Document:
            source, manifest = self._manifest(name, auth, cancel, push=True)
            if claim.digest != manifest.digest:
                raise InvalidRequest(
                    f"the signature is for {claim.digest}, but {name} is {manifest.digest}",
                    hint="sign the image that the name refers to now, or use its digest",
                )
            image = Descriptor(manifest.media_type, manifest.digest, len(manifest.data))
            signature = Signature(body.payload, body.signature)
            trust_referrers.add(source, image, signature, cancel, referring=body.referring)
            self._services.service(image_policy).fetch_signatures(source, manifest, name, cancel)
            return {"Descriptor": _descriptor(manifest)}

        return await in_cancellable_thread(work)

    def _manifest(
        self, name: str, auth: RegistryAuth | None, cancel: Cancellation, *, push: bool = False
    ) -> tuple[Repository, Manifest]:
        from jaula.images.registry import registry_errors

        reference = references.parse(name)
        credentials = credentials_for(auth, reference.domain)
        source = self._distribution.client.repository(
            reference.domain, reference.path, credentials, cancel, push=push
        )
        try:
            return source, source.manifest(reference.digest or reference.tag or "", cancel)
        except registry_errors.RegistryError as error:
            raise registry_errors.pull_error(error, reference.repository, str(reference)) from None

    async def sbom(self, name: str, form: str) -> msgspec.Raw:
        """Return the packages in an image, as a document in the requested format.

        :raises InvalidRequest: when the format is not known, or the image's package databases are
            damaged or too large.
        """
        from jaula.features.trust.sbom import formats, sbom_worker
        from jaula.storage.drivers.storage_driver import open_root

        if form not in formats.FORMATS:
            raise InvalidRequest(
                f"unknown format {form[:40]!r}", hint=f"must be one of {', '.join(formats.FORMATS)}"
            )
        familiar_name = familiar(name)

        def work(stop: Stop) -> msgspec.Raw:
            with self._services.images.pinned_image(name) as image:
                names = (*image.names, *image.digests)
                title = familiar_name if familiar_name in names else image.id
                request = sbom_worker.SbomRequest(form, image.id, image.created, title)
                with open_root(self._services.snapshots.view(image.layers)) as root:
                    return sbom_worker.document(root, request, stop.ends)

        images = self._services.images
        if self._services.lazy_layers is not None:  # the list is about verified content
            await in_request_thread(partial(images.wait_whole, images.resolve(name)))
        return await in_sandbox(work)


def _rule_document(rule: TrustRule) -> Document:
    return {
        "Scope": rule.scope.text,
        "Verdict": str(rule.verdict),
        "Keys": [{"Name": key.name, "Fingerprint": key.fingerprint} for key in rule.keys],
        "SignedAs": rule.signed_as,
    }


def _descriptor(manifest: Manifest) -> Document:
    return {"mediaType": manifest.media_type, "digest": manifest.digest, "size": len(manifest.data)}


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
