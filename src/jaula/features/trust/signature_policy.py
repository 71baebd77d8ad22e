"""The image policy: which images may be pulled, and which may run.

* At a pull the rule of the name is applied before a layer is fetched. If it requires a signature,
  the registry is asked for those of the image's manifest and of the index that lists it. If a
  mirror has none, the next source is asked.
* When a container is created, and at each start, the rule of the requested name is applied again.
  An image requested by its id may run if it may run under one of its names.
* An image that needs a signature is pulled whole, and runs only when it is whole: the signature is
  for the digests of layers, and the content of a layer that is still fetched had none yet.

A rule is for a registry (``registry.example.com``), a path with everything below it
(``registry.example.com/team``), or a tag (``registry.example.com/team/app:1.0``). The most specific
rule that matches decides alone. Names are compared in their full form,
``docker.io/library/busybox:latest``.

The rules are the table ``images`` of ``policy.toml``::

    [images]
    "*" = "reject"
    "docker.io/library" = "accept"
    "registry.example.com/team" = { signed-by = ["keys/team.pub"] }

The table ``checkpoints`` has rules of the same form about archives of checkpoints, by the name of
their image. It has keys and ``reject`` only: an archive without a rule is refused, since it is code
and orders for a process with root's rights.

Keys are PEM files, relative to the directory of the policy, or the text of one. The file and the
keys must belong to the engine's user and must not be writable by other users: a user who can write
them decides which images run. The file is read again when it has changed. If it cannot be read,
every image is refused, since its rules are unknown.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jaula import trusted_file
from jaula.errors import InvalidRequest, NotFound, Unavailable
from jaula.features.trust import signature as signatures
from jaula.features.trust import signing_keys
from jaula.features.trust.signature import UnsignedImage, VerifiedSignature
from jaula.features.trust.signature_store import SignatureStore, StoredSignature
from jaula.images.policy import ImageRefused
from jaula.images.reference import DEFAULT_DOMAIN, Reference, could_be_id, familiar, is_tag, parse
from jaula.images.store.image_store import Image, ImageStore
from jaula.sha256 import sha256

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.config import EngineConfig
    from jaula.engine.model.services import Services
    from jaula.features.trust.signing_keys import PublicKey
    from jaula.images.registry.cancellation import Cancellation
    from jaula.images.registry.manifest_download import Document
    from jaula.images.registry.repository import Repository


_REGISTRY = re.compile(r"[a-zA-Z0-9.-]+(?::[0-9]+)?|\[[0-9a-fA-F:]+\](?::[0-9]+)?", re.ASCII)
_PATH = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+|/)[a-z0-9]+)*", re.ASCII)
EVERYTHING = "*"


class Verdict(StrEnum):
    """The verdict of a rule."""

    ACCEPT = "accept"
    REJECT = "reject"
    SIGNED_BY = "signed-by"


class RuleScope(msgspec.Struct, frozen=True):
    """The images that a rule applies to. ``text`` is as written by the operator."""

    text: str
    domain: str = ""  # empty for all images
    path: str = ""
    tag: str = ""

    @property
    def weight(self) -> tuple[bool, int, bool]:
        """Return how specific the scope is: the rule with the greatest weight decides."""
        return bool(self.domain), len(self.path.split("/")) if self.path else 0, bool(self.tag)

    def covers(self, reference: Reference) -> bool:
        """Return whether the rule applies to images of this name."""
        if not self.domain:
            return True
        if reference.domain != self.domain:
            return False
        if self.tag:
            return reference.path == self.path and reference.tag == self.tag
        below = reference.path.startswith(self.path + "/")
        return not self.path or reference.path == self.path or below


class TrustRule(msgspec.Struct, frozen=True):
    """A rule of the image policy. Any of the ``keys`` of ``signed-by`` is sufficient.

    ``signed_as`` is the repository that signatures name, if it differs from the image's.
    """

    scope: RuleScope
    verdict: Verdict
    keys: tuple[PublicKey, ...] = ()
    signed_as: str = ""

    def __str__(self) -> str:
        """Return the rule as the line in the file, for error messages."""
        if self.verdict is Verdict.SIGNED_BY:
            return f'"{self.scope.text}" = signed by {", ".join(key.name for key in self.keys)}'
        return f'"{self.scope.text}" = "{self.verdict}"'

    def signed_repository(self, reference: Reference) -> str:
        """Return the repository that a signature of this image must name."""
        return self.signed_as or f"{reference.domain}/{reference.path}"


class TrustRules(msgspec.Struct, frozen=True):
    """All rules, and the file they come from. Without rules every image is accepted."""

    rules: tuple[TrustRule, ...] = ()
    source: str = ""
    checkpoints: tuple[TrustRule, ...] = ()

    @property
    def in_force(self) -> bool:
        """Return whether there is at least one rule."""
        return bool(self.rules)

    def of(self, reference: Reference) -> TrustRule:
        """Return the rule that applies to a name."""
        return _most_specific(self.rules, reference) or ACCEPTED

    def of_checkpoint(self, reference: Reference | None) -> TrustRule | None:
        """Return the rule for archives of checkpoints of containers with an image of this name."""
        if reference is None:
            return next((rule for rule in self.checkpoints if not rule.scope.domain), None)
        return _most_specific(self.checkpoints, reference)

    @property
    def general(self) -> TrustRule:
        """Return the rule for images that no other rule covers."""
        return next((rule for rule in self.rules if not rule.scope.domain), ACCEPTED)


def _most_specific(rules: Iterable[TrustRule], reference: Reference) -> TrustRule | None:
    matching = (rule for rule in rules if rule.scope.covers(reference))
    return max(matching, key=lambda rule: rule.scope.weight, default=None)


ACCEPTED = TrustRule(RuleScope("(no rule)"), Verdict.ACCEPT)


def parse_scope(text: str) -> RuleScope:
    """Parse the scope of a rule.

    :raises InvalidRequest: if it is not valid.
    """
    if text == EVERYTHING:
        return RuleScope(text)
    domain, slash, rest = text.partition("/")
    known = "." in domain or ":" in domain or domain == "localhost"
    if not known or not _REGISTRY.fullmatch(domain):
        raise InvalidRequest(
            f"{text[:200]!r} does not start with a registry",
            hint=f'use "*", or a registry and a path: {DEFAULT_DOMAIN}/library/busybox',
        )
    path, colon, tag = rest.partition(":")
    if slash and not _PATH.fullmatch(path):
        raise InvalidRequest(f"{text[:200]!r}: {path[:120]!r} is not a valid repository name")
    if colon and not is_tag(tag):
        raise InvalidRequest(f"{text[:200]!r}: {tag[:120]!r} is not a valid tag")
    return RuleScope(text, "docker.io" if domain == "index.docker.io" else domain, path, tag)


SECTION: Final = "images"
CHECKPOINTS: Final = "checkpoints"
MAX_SIZE: Final = 1 << 20  # bytes
_PEM: Final = "-----BEGIN "
_MEMBERS: Final = ("signed-by", "signed-as")


class RulesFile:
    """The policy file, with the state of each file it was read from.

    ``stamps`` are stat values of the policy and of its key files, so that a change of a key is
    noticed too.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.stamps: dict[str, tuple[int, ...]] = {}

    def read(self, *, required: bool = True) -> TrustRules:
        """Return the rules, none if the file is absent and not ``required``.

        :raises InvalidRequest: if the file cannot be read or is not valid.
        """
        self.stamps = {self.path: file_stamp(self.path)}
        data = trusted_file.read(self.path, MAX_SIZE, "policy", required=required)
        if data is None:
            return TrustRules()
        try:
            rules = parse_rules(data, self._key)
            checkpoints = parse_rules(data, self._key, section=CHECKPOINTS)
        except InvalidRequest as error:
            raise InvalidRequest(f"policy {self.path}: {error.message}", hint=error.hint) from None
        digest = sha256(data).hexdigest()
        source = f"{self.path} sha256:{digest}" if rules else ""
        return TrustRules(rules, source, checkpoints)

    @property
    def changed(self) -> bool:
        """Return whether a file has changed since it was read. Costs a microsecond per file."""
        return any(file_stamp(path) != former for path, former in self.stamps.items())

    def _key(self, name: str) -> bytes:
        path = os.path.join(os.path.dirname(os.path.abspath(self.path)), name)
        self.stamps[path] = file_stamp(path)
        data = trusted_file.read(path, signing_keys.PEM_LIMIT, "key", required=True)
        assert data is not None, "a required file is read or refused"
        return data


def file_stamp(path: str) -> tuple[int, ...]:
    """Return stat values that change when a file is written or replaced, empty if it is absent."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return (
        *(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns),
        *(status.st_uid, status.st_mode),
    )


def parse_rules(
    data: bytes, key: Callable[[str], bytes], *, section: str = SECTION
) -> tuple[TrustRule, ...]:
    """Parse the table of a section. ``key`` returns the content of a key file.

    :raises InvalidRequest: if the table is not valid.
    """
    from jaula.spec import toml

    try:
        document = toml.loads(data)
    except ValueError as error:
        raise InvalidRequest(f"it is not a TOML document: {error}") from None
    table = document.get(section, {})
    if not isinstance(table, dict):
        raise InvalidRequest(f"[{section}] is not a table")
    rules: dict[tuple[str, str, str], TrustRule] = {}
    for name, value in table.items():
        rule = _rule(section, name, value, key)
        target = rule.scope.domain, rule.scope.path, rule.scope.tag
        if target in rules:
            raise InvalidRequest(
                f'[{section}] "{name}": "{rules[target].scope.text}" has the same scope'
            )
        rules[target] = rule
    return tuple(rules.values())


def _rule(section: str, name: str, value: Any, key: Callable[[str], bytes]) -> TrustRule:
    about = f'[{section}] "{name}"'
    try:
        rule_scope = parse_scope(name)
    except InvalidRequest as error:
        raise InvalidRequest(f"[{section}]: {error.message}", hint=error.hint) from None
    if section == CHECKPOINTS and value == Verdict.ACCEPT.value:
        raise InvalidRequest(
            f"{about}: checkpoints cannot be accepted without a signature",
            hint='use { signed-by = ["KEY.pub"] }',
        )
    if value in (Verdict.ACCEPT.value, Verdict.REJECT.value):
        return TrustRule(rule_scope, Verdict(value))
    if not isinstance(value, dict) or not value.get("signed-by"):
        raise InvalidRequest(
            f"{about}: {str(value)[:80]!r} is not a valid rule",
            hint='use "accept", "reject" or { signed-by = ["KEY.pub"] }',
        )
    members = _MEMBERS[:1] if section == CHECKPOINTS else _MEMBERS
    for member in value:
        if member not in members:
            raise InvalidRequest(
                f"{about}: unknown key {member[:80]!r}", hint=f"known: {', '.join(members)}"
            )
    listed = value["signed-by"]
    texts = [listed] if isinstance(listed, str) else listed
    if not isinstance(texts, list) or not all(isinstance(t, str) and t for t in texts):
        raise InvalidRequest(f"{about} signed-by: must be a list of public keys")
    try:
        trusted = tuple(_public(text, number, key) for number, text in enumerate(texts, 1))
    except InvalidRequest as error:
        raise InvalidRequest(f"{about}: {error.message}", hint=error.hint) from None
    return TrustRule(
        rule_scope, Verdict.SIGNED_BY, trusted, _signed_as(about, value.get("signed-as", ""))
    )


def _public(text: str, number: int, key: Callable[[str], bytes]) -> signing_keys.PublicKey:
    if text.lstrip().startswith(_PEM):
        return signing_keys.public_key(text.encode(), f"key {number}")
    if "\0" in text:
        raise InvalidRequest("the path of a key contains a null byte")
    return signing_keys.public_key(key(text), text)


def _signed_as(about: str, value: object) -> str:
    if not value:
        return ""
    if not isinstance(value, str) or ":" in value.rpartition("/")[2] or "@" in value:
        raise InvalidRequest(f"{about} signed-as: must be a repository without a tag")
    reference = parse(value)
    return f"{reference.domain}/{reference.path}"


log = logging.getLogger("jaula.trust")


def open_policy(config: EngineConfig, images: ImageStore, path: str) -> ImagePolicy:
    """Return the image policy of an engine, from the file of its policy.

    :raises InvalidRequest: when it cannot be read.
    """
    return ImagePolicy(
        images, config.paths.trust, path, required=bool(config.policy), durable=config.durable
    )


def image_policy(services: Services) -> ImagePolicy:
    """Return the image policy of an engine, with its rules and the signatures of checkpoints."""
    policy = services.image_policy
    assert isinstance(policy, ImagePolicy)
    return policy


class ImagePolicy:
    """The image policy of one engine. Methods may be called from several threads."""

    def __init__(
        self,
        store: ImageStore,
        directory: Path,
        path: str = "",
        *,
        required: bool = False,
        durable: bool = True,
    ) -> None:
        """Load the policy file ``path``, empty for an engine without a policy.

        With ``durable``, the signatures of an image are on the disk before its pull ends.

        :raises InvalidRequest: if the file cannot be read.
        """
        self._store = store
        self.signatures = SignatureStore(directory, durable=durable)
        self._lock = threading.Lock()
        self.load_file(path, required=required)
        self.signatures.keep_only(store.manifests())

    def load_file(self, path: str, *, required: bool) -> None:
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

    def check_name(self, reference: Reference) -> None:
        """Check a name before its registry is contacted.

        :raises ImageRefused: if its rule rejects it.
        """
        rule = self.rules().of(reference)
        if rule.verdict is Verdict.REJECT:
            raise refusal(str(reference), rule)

    def requires_signature(self, reference: Reference) -> bool:
        """Return whether an image of this name needs a signature.

        :raises ImageRefused: if the policy cannot be read.
        """
        return self.rules().of(reference).verdict is Verdict.SIGNED_BY

    def check_pull(
        self,
        sources: Iterable[Repository],
        reference: Reference,
        named: Document,
        manifest: Document,
        cancel: Cancellation,
    ) -> Callable[[], None]:
        """Check an image that is to be pulled and return the action for when it is stored.

        ``named`` is the document that the reference resolves to, possibly an index that lists
        ``manifest``. The action stores the signatures.

        :raises ImageRefused: if the policy refuses the image.
        :raises RegistryError: if no server sends its signatures.
        """
        rule = self.rules().of(reference)
        if rule.verdict is Verdict.ACCEPT:
            return _nothing
        if rule.verdict is Verdict.REJECT:
            raise refusal(str(reference), rule)
        from jaula.features.trust import referrers
        from jaula.images.registry.registry_errors import RegistryError

        tag = None if reference.digest else reference.tag
        documents = (manifest,) if named.digest == manifest.digest else (named, manifest)
        reasons: list[str] = []
        failure: RegistryError | None = None
        for source, document in ((source, each) for source in sources for each in documents):
            try:
                fetched = tuple(referrers.find(source, document.digest, cancel))
            except RegistryError as error:
                failure = error  # the next server may have the signatures
                continue
            index = document.data if document.is_index else b""
            stored = StoredSignature(f"{reference.domain}/{reference.path}", fetched, index)
            try:
                signatures.find(
                    fetched, rule.keys, document.digest, rule.signed_repository(reference), tag
                )
            except UnsignedImage as error:
                reasons.append(error.message)
                continue
            return lambda: self._keep(manifest.digest, stored)
        if failure is not None and not reasons:
            raise failure
        raise refusal(str(reference), rule, "; ".join(dict.fromkeys(reasons)))

    def fetch_signatures(
        self, source: Repository, document: Document, name: str, cancel: Cancellation
    ) -> None:
        """Store the signatures that a registry has for an image that is already stored.

        Those of an index are stored for each of its images that the store holds.
        """
        from jaula.features.trust import referrers

        index = self._store.index(document.digest)
        manifests = index.images if index else (document.digest,)
        stored = [manifest for manifest in manifests if manifest in self._store.manifests()]
        if not stored:
            return
        reference = parse(name)
        fetched = tuple(referrers.find(source, document.digest, cancel))
        signatures = StoredSignature(
            f"{reference.domain}/{reference.path}", fetched, document.data if index else b""
        )
        for manifest in stored:
            self._keep(manifest, signatures)

    def _keep(self, manifest: str, stored: StoredSignature) -> None:
        self.signatures.keep(manifest, stored)
        self.signatures.keep_only(self._store.manifests())

    def check_load(self, name: str, id: str) -> None:
        """Check an image that an archive would give this name.

        :raises ImageRefused: if the policy refuses it.
        """
        reference = parse(name)
        rule = self.rules().of(reference)
        self._check(rule, reference, name, self._store.manifests_of(id))

    # -- checkpoints ------------------------------------------------------------------------------

    def checkpoint_signers(self, manifest: bytes, signature: bytes) -> tuple[TrustRule, ...]:
        """Return the rules one of whose keys has signed the manifest of an archive.

        Nothing of the manifest is read.

        :raises ImageRefused: if there is none.
        """
        rules = self.rules().checkpoints
        signers = tuple(
            rule for rule in rules if any(key.verifies(signature, manifest) for key in rule.keys)
        )
        if signature and signers:
            return signers
        reason = "its signature is of no key of the policy" if signature else "it is not signed"
        line = '[checkpoints] "*" = { signed-by = ["KEY.pub"] }'
        raise ImageRefused(
            f"the checkpoint is refused: this engine has not written it, and {reason}",
            hint=f"sign it with jaula checkpoint export --key; the policy names keys with {line}",
        )

    def check_checkpoint(
        self, asked: str, signers: tuple[TrustRule, ...], image: Image | None = None
    ) -> None:
        """Check that the rule for checkpoints of an image is among those with a valid signature.

        ``asked`` is the reference by which a container was created, or will be, and ``image`` what
        it means here. Then the rules for the image's names in registries must agree too, and those
        for all of its names if ``asked`` is an id: another name gives no right.

        :raises ImageRefused: if it is not.
        """
        rules = self.rules()
        first, more = checkpoint_names(asked, image)
        rule = rules.of_checkpoint(first)
        _check_signer(asked, rule, signers)
        for reference in more:
            other = rules.of_checkpoint(reference)
            if other is not None:
                _check_signer(str(reference), other, signers)

    # -- create and start ------------------------------------------------------------------------

    def check_run(self, image: Image, asked: str) -> VerifiedSignature | None:
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
        for reference in candidate_names(image, asked):
            try:
                found = self._check(rules.of(reference), reference, asked, manifests)
            except ImageRefused as error:
                refused = refused or error
            else:
                if found is not None and not self._store.is_whole(image):
                    raise Unavailable(
                        f"image {asked[:300]} is not complete, and the image policy requires a"
                        " signature of it: its layers are not verified yet",
                        hint="try again when it is whole, or pull it again",
                    )
                return found
        if refused is not None:
            raise refused
        return self._check(rules.general, None, asked, manifests)

    def check_start(self, id: str, asked: str) -> None:
        """Check the image of a container at its start.

        ``id`` is the image's id, ``asked`` the reference that the container was created with.

        :raises ImageRefused: if the policy refuses the image.
        """
        rules = self.rules()
        if not rules.in_force:
            return
        try:
            self.check_run(self._store.resolve(id), asked)
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
                return verify_stored(self.signatures, manifest, rule, reference)
            except UnsignedImage as error:
                reason = error.message or reason
        raise refusal(label, rule, reason)


def verify_stored(
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
                stored.signed_digest(manifest),
                rule.signed_repository(reference),
                None if reference.digest else reference.tag,
            )
        except UnsignedImage as error:
            reason = error.message
    raise UnsignedImage(reason)


def _check_signer(name: str, rule: TrustRule | None, signers: tuple[TrustRule, ...]) -> None:
    if rule is None or rule.verdict is not Verdict.SIGNED_BY or rule not in signers:
        what = f"rule {rule} applies" if rule is not None else "no rule is for it"
        raise ImageRefused(
            f"the checkpoint is refused: its image is {name[:300]}, and {what}",
            hint="see the table [checkpoints] of the policy",
        )


def checkpoint_names(asked: str, image: Image | None) -> tuple[Reference | None, list[Reference]]:
    """Return the reference whose rule must accept a checkpoint, and others that may refuse it.

    Pure. The first one is None for an image without a name. ``asked`` may be an id, for which the
    first name of the image stands.
    """
    name = familiar(asked)
    if image is None:
        return (parse(name) if name is not None else None), []
    names, digests = image.names, image.digests
    if name is not None and (name in (*names, *digests) or not could_be_id(asked)):
        return parse(name), [parse(text) for text in digests if text != name]
    known = [parse(text) for text in (*names, *digests)]
    return (known[0] if known else None), known[1:]


def candidate_names(image: Image, asked: str) -> list[Reference]:
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
