"""The image policy: signatures in a registry, and stored signatures at a start."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.images import archive, file
from harness.index_layouts import blob_path, index_layout
from harness.puller import HELD, Puller
from harness.scripted_registry import (
    INDEX,
    MANIFEST,
    Request,
    ScriptedRegistry,
    described,
    digest,
    layer,
)
from jaula.engine.images.manifests import identity
from jaula.errors import CorruptState, InvalidRequest
from jaula.features.trust import cosign_manifest, referrers, signing_keys, simple_signing
from jaula.features.trust.signature import Signature
from jaula.features.trust.signature_policy import ImagePolicy
from jaula.images.archive.load_archive import load
from jaula.images.policy import ImageRefused
from jaula.images.reference import parse
from jaula.images.registry import registry_hosts
from jaula.images.registry.auth.token import Credentials
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.manifest_download import Document
from jaula.images.registry.registry_errors import RegistryError
from jaula.spec.image_documents import Descriptor, Platform

KEY, STRANGER = signing_keys.generate(), signing_keys.generate("ed25519")


class Signed:
    """A registry that stores pushed images, with or without referrers, and an image policy."""

    def __init__(self, directory: Path, registry: ScriptedRegistry) -> None:
        self.registry = registry
        self.puller = Puller(directory)
        self.policy = directory / "policy.toml"
        (directory / "team.pub").write_bytes(KEY.public.pem)
        self.rule('{ signed-by = ["team.pub"] }')
        self.gate = ImagePolicy(
            self.puller.store, directory / "trust", str(self.policy), required=True
        )
        self.puller.client.admission = self.gate
        self.name = f"{registry.name}/box:1"
        self.manifests: dict[str, tuple[str, bytes]] = {}

    def rule(self, text: str) -> None:
        self.policy.write_text(f'[images]\n"{self.registry.name}" = {text}\n')

    def sign(
        self, data: bytes | None = None, key: signing_keys.PrivateKey = KEY, name: str = ""
    ) -> Signature:
        claim = simple_signing.SimpleSigning(
            digest(data or self.registry.manifest), name or f"{self.place}"
        )
        text = simple_signing.write(claim)
        return Signature(text, key.sign(text))

    @property
    def place(self) -> str:
        return f"{self.registry.name}/box"

    def tag(self, *signatures: Signature, data: bytes | None = None) -> None:
        """Put signatures under cosign's tag."""
        manifest, config = None, None
        for signature in signatures:
            config = cosign_manifest.config_with(signature, config)
            manifest = cosign_manifest.manifest_with(signature, config, manifest)
            self.registry.blobs[digest(signature.payload)] = signature.payload
        assert manifest is not None
        self.serve(cosign_manifest.signature_tag(digest(data or self.registry.manifest)), manifest)

    def serve(self, reference: str, data: bytes, kind: str = MANIFEST) -> None:
        self.registry.scripts[f"GET /v2/box/manifests/{reference}"] = lambda request: (
            request.answer(200, data, kind)
        )

    def refer(self, signature: Signature, *, by_tag: bool) -> None:
        """Put a manifest of a signature that refers to the image."""
        config = cosign_manifest.config_with(signature, None)
        data = self.registry.manifest
        subject = Descriptor(MANIFEST, digest(data), len(data))
        manifest = cosign_manifest.manifest_with(signature, config, subject=subject)
        self.registry.blobs[digest(signature.payload)] = signature.payload
        self.serve(digest(manifest), manifest)
        index = cosign_manifest.referrers_with(manifest, None)
        if by_tag:
            self.serve(cosign_manifest.referrers_tag(digest(data)), index, INDEX)
        else:
            self.registry.scripts[f"/v2/box/referrers/{digest(data)}"] = lambda request: (
                request.answer(200, index, INDEX)
            )

    def pull(self) -> None:
        self.puller.pull(self.name)

    def run(self, asked: str = "") -> None:
        image = self.puller.store.resolve(asked or self.name)
        self.gate.check_run(image, asked or self.name)


@pytest.fixture
def signed(tmp_path: Path) -> Iterator[Signed]:
    with ScriptedRegistry(layer()) as registry:
        yield Signed(tmp_path, registry)


def test_an_unsigned_image_is_refused_before_a_layer_is_fetched(signed: Signed) -> None:
    with pytest.raises(ImageRefused) as caught:
        signed.pull()
    assert caught.value.status == 403
    assert caught.value.message == (
        f"image {signed.name} is refused by the image policy, "
        f'rule "{signed.registry.name}" = signed by team.pub: it has no signature'
    )
    assert not signed.registry.asked("/blobs/")
    assert signed.puller.left() == []


def test_a_signed_image_is_pulled_and_runs(signed: Signed) -> None:
    signed.tag(signed.sign())
    signed.pull()
    signed.run()
    signed.run(signed.puller.store.resolve(signed.name).id)


@pytest.mark.parametrize("by_tag", [False, True])
def test_a_signature_that_refers_to_the_image_counts(signed: Signed, by_tag: bool) -> None:
    signed.refer(signed.sign(), by_tag=by_tag)
    signed.pull()
    signed.run()


def test_both_locations_are_searched(signed: Signed) -> None:
    signed.tag(signed.sign(key=STRANGER))
    signed.refer(signed.sign(), by_tag=False)
    signed.pull()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s.sign(key=STRANGER), "by other keys"),
        (lambda s: s.sign(data=b"another"), "of another image"),
        (lambda s: s.sign(name="docker.io/library/box"), "for another name"),
    ],
)
def test_a_signature_that_is_not_the_images_does_not_count(
    signed: Signed, change: object, reason: str
) -> None:
    signed.tag(change(signed))  # type: ignore[operator]
    with pytest.raises(ImageRefused, match=reason):
        signed.pull()
    assert signed.puller.left() == []


def test_a_payload_that_was_exchanged_does_not_count(signed: Signed) -> None:
    made = signed.sign()
    signed.tag(made)
    signed.registry.blobs[digest(made.payload)] = b"x" * len(made.payload)
    with pytest.raises(ImageRefused, match="it has no signature"):
        signed.pull()


def test_a_damaged_signature_hides_no_other(signed: Signed) -> None:
    """Other users may push next to an image; that must not make it unsigned."""
    image = digest(signed.registry.manifest)
    made = signed.sign()
    signed.refer(made, by_tag=False)
    path = f"/v2/box/referrers/{image}"
    good = cosign_manifest.referrers_with(
        cosign_manifest.manifest_with(
            made,
            cosign_manifest.config_with(made, None),
            subject=Descriptor(MANIFEST, image, len(signed.registry.manifest)),
        ),
        cosign_manifest.referrers_with(b"gone", cosign_manifest.referrers_with(b"{}", None)),
    )
    signed.serve(digest(b"{}"), b"{}")
    signed.serve(cosign_manifest.signature_tag(image), b'{"schemaVersion": 1}')
    signed.registry.scripts[path] = lambda request: request.answer(200, good, INDEX)
    signed.pull()


def test_a_damaged_list_hides_no_signature(signed: Signed) -> None:
    signed.tag(signed.sign())
    signed.serve(cosign_manifest.referrers_tag(digest(signed.registry.manifest)), b"{", INDEX)
    signed.pull()


def test_a_failing_registry_does_not_count_as_one_without_signatures(signed: Signed) -> None:
    tag = cosign_manifest.signature_tag(digest(signed.registry.manifest))
    signed.registry.scripts[f"GET /v2/box/manifests/{tag}"] = lambda r: r.answer(500, b"{}")
    with pytest.raises(RegistryError, match="500"):
        signed.pull()


def test_without_a_rule_no_signatures_are_fetched(signed: Signed) -> None:
    signed.rule('"accept"')
    signed.pull()
    signed.run()
    assert not signed.registry.asked(".sig")
    assert not signed.registry.asked("referrers")


def test_a_registry_that_is_rejected_is_not_spoken_to(signed: Signed) -> None:
    signed.rule('"reject"')
    with pytest.raises(ImageRefused) as caught:
        signed.pull()
    assert caught.value.message.endswith(f'rule "{signed.registry.name}" = "reject"')
    assert signed.registry.seen == []


def test_a_signed_index_covers_the_manifests_that_it_lists(signed: Signed) -> None:
    manifest = signed.registry.manifest
    index = json.dumps({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [
            described(manifest, MANIFEST, platform={"architecture": "amd64", "os": "linux"})
        ],
    }).encode()  # fmt: skip
    signed.registry.send_manifest(index, INDEX)
    with pytest.raises(ImageRefused):
        signed.pull()
    signed.tag(signed.sign(index), data=index)
    signed.pull()
    signed.run()
    signed.run(f"{signed.place}@{digest(index)}")


def test_a_platform_that_was_not_pulled_with_its_signature_does_not_run(signed: Signed) -> None:
    """A signature of one manifest of an index says nothing about the others."""
    manifest, other = signed.registry.manifest, layer("other")
    arm = {"architecture": "arm64", "os": "linux"}
    files = index_layout({"linux/arm64": other}, None)
    document = next(data for data in files.values() if data.startswith(b'{"schemaVersion"'))
    index = json.dumps({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [
            described(manifest, MANIFEST, platform={"architecture": "amd64", "os": "linux"}),
            described(document, MANIFEST, platform=arm),
        ],
    }).encode()  # fmt: skip
    signed.registry.send_manifest(index, INDEX)
    signed.tag(signed.sign(manifest), data=manifest)
    signed.pull()
    signed.run()
    name = {"org.opencontainers.image.ref.name": signed.name}
    listed = {"mediaType": INDEX, "digest": digest(index), "size": len(index), "annotations": name}
    files |= {blob_path(index): index, "index.json": json.dumps({"manifests": [listed]}).encode()}
    packed = io.BytesIO(archive([file(path, data) for path, data in files.items()]))
    with pytest.raises(ImageRefused):
        list(load(signed.puller.store, packed, admit=signed.gate.check_load))
    packed.seek(0)
    list(load(signed.puller.store, packed))
    signed.run()
    image = signed.puller.store.resolve(signed.name, Platform("arm64", "linux"))
    with pytest.raises(ImageRefused, match="no signatures of it are stored"):
        signed.gate.check_run(image, signed.name)


def test_a_signature_of_an_index_counts_for_the_images_that_are_stored(signed: Signed) -> None:
    signed.rule('"accept"')
    manifest = signed.registry.manifest
    index = json.dumps({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [
            described(manifest, MANIFEST, platform={"architecture": "amd64", "os": "linux"})
        ],
    }).encode()  # fmt: skip
    signed.registry.send_manifest(index, INDEX)
    signed.pull()
    signed.tag(signed.sign(index), data=index)
    signed.rule('{ signed-by = ["team.pub"] }')
    with pytest.raises(ImageRefused):
        signed.run()
    document = Document(INDEX, digest(index), index)
    reference, cancel = parse(signed.name), Cancellation()
    source = signed.puller.client.repository(
        reference.domain, reference.path, Credentials(), cancel
    )
    signed.gate.fetch_signatures(source, document, signed.name, cancel)
    signed.run()


def test_the_identity_has_the_repository_and_the_verified_signature(signed: Signed) -> None:
    signed.tag(signed.sign())
    signed.pull()
    image = signed.puller.store.resolve(signed.name)
    known = identity(signed.gate, image)
    assert known is not None
    assert known["Pull"] == [{"Repository": signed.place}]
    (verified,) = known["Signature"]
    assert verified["Name"] == f"key team.pub ({KEY.public.fingerprint})"
    assert verified["DockerReference"] == signed.place
    signed.gate.signatures.path(image.manifest).unlink()
    (refused,) = (identity(signed.gate, image) or {})["Signature"]
    assert "no signatures of it are stored" in refused["Error"]
    signed.rule('"accept"')
    assert identity(signed.gate, image) == {"Pull": known["Pull"]}


def test_an_image_pulled_before_the_rule_must_be_pulled_again(signed: Signed) -> None:
    signed.rule('"accept"')
    signed.pull()
    signed.rule('{ signed-by = "team.pub" }')
    with pytest.raises(ImageRefused, match="no signatures of it are stored; pull it again"):
        signed.run()
    signed.tag(signed.sign())
    signed.pull()
    signed.run()


def test_a_change_of_the_rules_counts_at_once(signed: Signed) -> None:
    signed.tag(signed.sign())
    signed.pull()
    (signed.policy.parent / "team.pub").write_bytes(STRANGER.public.pem)
    with pytest.raises(ImageRefused, match="1 by other keys"):
        signed.run()
    signed.rule('"reject"')
    with pytest.raises(ImageRefused, match='"reject"'):
        signed.run()
    signed.policy.write_text("[images")
    with pytest.raises(ImageRefused, match="no image is accepted while the policy cannot be read"):
        signed.run()
    signed.policy.unlink()
    with pytest.raises(ImageRefused, match="No such file"):
        signed.run()
    signed.rule('"accept"')
    signed.run()


def test_another_policy_file_can_be_loaded(signed: Signed, tmp_path: Path) -> None:
    signed.rule('"accept"')
    signed.pull()
    other = tmp_path / "other.toml"
    with pytest.raises(InvalidRequest, match="No such file"):
        signed.gate.load_file(str(other), required=True)
    signed.run()
    other.write_text('[images]\n"*" = "reject"\n')
    signed.gate.load_file(str(other), required=True)
    with pytest.raises(ImageRefused):
        signed.run()
    signed.gate.load_file("", required=False)
    signed.run()


def test_another_name_needs_its_own_signature(signed: Signed) -> None:
    signed.tag(signed.sign())
    signed.pull()
    signed.puller.store.tag(signed.name, f"{signed.registry.name}/other:1")
    with pytest.raises(ImageRefused, match="for another name"):
        signed.run(f"{signed.registry.name}/other:1")
    signed.puller.store.tag(signed.name, "mine:1")
    signed.run("mine:1")  # no rule covers that name


def test_stored_signatures_are_verified_again(signed: Signed) -> None:
    signed.tag(signed.sign())
    signed.pull()
    path = signed.gate.signatures.path(digest(signed.registry.manifest))
    forged = path.read_bytes().replace(b'"value":"', b'"value":"AAAA')
    path.write_bytes(forged)
    with pytest.raises(ImageRefused, match="by other keys"):
        signed.run()
    path.write_bytes(b"{")
    with pytest.raises(CorruptState):
        signed.run()


def test_stored_signatures_are_removed_with_the_image(signed: Signed) -> None:
    signed.tag(signed.sign())
    signed.pull()
    directory = signed.gate.signatures.path(digest(signed.registry.manifest)).parent
    assert len(list(directory.iterdir())) == 1
    signed.puller.store.remove(signed.puller.store.resolve(signed.name).id, force=True)
    ImagePolicy(signed.puller.store, directory, str(signed.policy))
    assert list(directory.iterdir()) == []


def test_an_archive_cannot_set_a_name_that_the_rules_refuse(signed: Signed) -> None:
    signed.tag(signed.sign())
    signed.pull()
    id = signed.puller.store.resolve(signed.name).id
    signed.gate.check_load(signed.name, id)  # its signature is stored
    with pytest.raises(ImageRefused):
        signed.gate.check_load(signed.name, "sha256:" + "ab" * 32)
    with pytest.raises(ImageRefused):
        signed.gate.check_load(f"{signed.registry.name}/other:1", id)
    signed.gate.check_load("mine:1", id)


def test_a_container_of_a_removed_image_is_checked_by_name(signed: Signed) -> None:
    with pytest.raises(ImageRefused):
        signed.gate.check_start("sha256:" + "ab" * 32, signed.name)
    signed.gate.check_start("sha256:" + "ab" * 32, "mine:1")


class StoringRegistry:
    """A registry that stores manifests and blobs, and may list referrers."""

    def __init__(self, registry: ScriptedRegistry, *, lists: bool) -> None:
        self.registry, self.lists = registry, lists
        self.manifests: dict[str, tuple[bytes, str]] = {}
        self.referring: list[bytes] = []
        registry.honest = self.answer  # type: ignore[method-assign]

    def answer(self, request: Request) -> None:
        path, _, query = request.path.partition("?")
        last = path.rpartition("/")[2]
        if path == "/v2/":
            request.answer(200, b"{}")
        elif "/referrers/" in path and self.lists:
            index = None
            for manifest in self.referring:
                index = cosign_manifest.referrers_with(manifest, index)
            empty = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).encode()
            request.answer(200, index or empty, INDEX)
        elif "/manifests/" in path and request.command == "PUT":
            kind = request.headers["Content-Type"]
            self.manifests[last] = self.manifests[digest(request.body)] = (request.body, kind)
            reported = {}
            subject = json.loads(request.body).get("subject")
            if subject and self.lists:
                self.referring.append(request.body)
                reported = {"OCI_Subject": subject["digest"]}
            request.answer(201, **reported)
        elif "/manifests/" in path and last in self.manifests:
            request.answer(200, *self.manifests[last])
        elif request.command == "POST":
            request.answer(202, Location="/v2/box/blobs/uploads/1")
        elif request.command == "PUT":
            self.registry.blobs[query.rpartition("=")[2]] = request.body
            request.answer(201)
        elif "/blobs/" in path and last in self.registry.blobs:
            request.answer(200, self.registry.blobs[last], "application/octet-stream")
        else:
            request.answer(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}')


@pytest.mark.parametrize("lists", [False, True])
@pytest.mark.parametrize("referring", [False, True])
def test_added_signatures_are_found(tmp_path: Path, lists: bool, referring: bool) -> None:
    with ScriptedRegistry(layer()) as registry:
        kept = StoringRegistry(registry, lists=lists)
        kept.manifests["1"] = (registry.manifest, MANIFEST)
        puller, cancel = Puller(tmp_path), Cancellation()
        name = parse(f"{registry.name}/box:1")
        target = puller.client.repository(name.domain, name.path, HELD, cancel)
        image = Descriptor(MANIFEST, digest(registry.manifest), len(registry.manifest))
        made = []
        for key in (KEY, STRANGER):
            text = simple_signing.write(simple_signing.SimpleSigning(image.digest, "r.io/x"))
            made.append(Signature(text, key.sign(text)))
            referrers.add(target, image, made[-1], cancel, referring=referring)
            referrers.add(
                target, image, made[-1], cancel, referring=referring
            )  # repeating it changes nothing
            assert referrers.find(target, image.digest, cancel) == made
        assert len(kept.referring) == (2 if referring and lists else 0)
        tag = cosign_manifest.signature_tag(image.digest)
        assert (tag in kept.manifests) is not referring
        listed = cosign_manifest.referrers_tag(image.digest) in kept.manifests
        assert listed is (referring and not lists)


def test_without_signatures_at_a_mirror_the_registry_is_queried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedRegistry(layer()) as mirror, ScriptedRegistry(layer()) as registry:
        signed = Signed(tmp_path, registry)
        rule = '"docker.io" = { signed-by = "team.pub", signed-as = "docker.io/x/box" }'
        signed.policy.write_text(f"[images]\n{rule}\n")
        monkeypatch.setattr(registry_hosts, "HUB", registry.name)
        signed.puller = Puller(tmp_path / "other", {"mirrors": (mirror.url,)})
        signed.gate = ImagePolicy(signed.puller.store, tmp_path / "trust", str(signed.policy))
        signed.puller.client.admission = signed.gate
        for place in (mirror, registry):
            at_hub(place)
        with pytest.raises(ImageRefused, match=r"it has no signature"):
            signed.puller.pull("x/box:1")
        made = signed.sign(name="docker.io/x/box")
        signed.tag(made)
        signed.puller.pull("x/box:1")
        assert mirror.asked("/blobs/")
        mirror_tag = f"/v2/box/manifests/{cosign_manifest.signature_tag(digest(mirror.manifest))}"
        mirror.scripts[f"GET {mirror_tag}"] = lambda request: request.answer(403)
        signed.puller.pull("x/box:1")
        assert len(mirror.asked(".sig")) == 3
        assert [h for h in registry.asked("/blobs/") if h] == registry.asked(digest(made.payload))


def at_hub(registry: ScriptedRegistry) -> None:
    """Serve ``x/box`` as ``box`` is served."""
    honest = registry.honest

    def named(request: Request) -> None:
        path = request.path.replace("/v2/x/box/", "/v2/box/")
        request.path = path
        script = registry.scripts.get(f"{request.command} {path.partition('?')[0]}")
        (script or honest)(request)

    registry.honest = named  # type: ignore[method-assign]
