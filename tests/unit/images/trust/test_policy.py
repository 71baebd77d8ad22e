"""Rules of the image policy: their syntax, and which of them applies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jaula.config import Paths
from jaula.errors import InvalidRequest
from jaula.features.trust import signature_policy, signing_keys
from jaula.features.trust.signature_policy import ImagePolicy, TrustRules, Verdict, parse_scope
from jaula.images.policy import ImageRefused
from jaula.images.reference import parse as reference
from jaula.images.store.image_store import ImageStore
from jaula.storage.layers.layer_store import LayerStore

KEY = signing_keys.generate()

FILE = b"""
[images]
"*" = "reject"
"docker.io" = "accept"
"docker.io/library/busybox" = "reject"
"docker.io/library/busybox:1.36" = "accept"
"r.io/team" = { signed-by = ["team.pub"] }
"r.io/team/app" = "accept"
"r.io:5000" = "accept"
"mirror.io/team" = { signed-by = ["team.pub"], signed-as = "r.io/team/app" }
"""


def read(data: bytes = FILE) -> TrustRules:
    return TrustRules(
        signature_policy.parse_rules(data, lambda name: KEY.public.pem), "policy.toml"
    )


@pytest.mark.parametrize(
    ("name", "decides"),
    [
        ("nginx", "docker.io"),
        ("busybox", "docker.io/library/busybox"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("docker.io/library/busybox:1.36", "docker.io/library/busybox:1.36"),
        ("index.docker.io/library/busybox:1.37", "docker.io/library/busybox"),
        ("r.io/team/web", "r.io/team"),
        ("r.io/team", "r.io/team"),
        ("r.io/team/app", "r.io/team/app"),
        ("r.io/team/app/deep:2", "r.io/team/app"),
        ("r.io/teams/app", "*"),
        ("r.io/other", "*"),
        ("r.io:5000/team/app", "r.io:5000"),
        ("q.io/x", "*"),
        ("busybox@sha256:" + "ab" * 32, "docker.io/library/busybox"),
    ],
)
def test_the_longest_rule_that_matches_decides(name: str, decides: str) -> None:
    assert read().of(reference(name)).scope.text == decides


def test_without_a_rule_everything_is_accepted() -> None:
    rules = read(b"")
    assert not rules.in_force
    assert rules.of(reference("x")).verdict is Verdict.ACCEPT
    assert read(b"[images]\n'r.io' = 'reject'").of(reference("x")).verdict is Verdict.ACCEPT


def test_a_rule_names_its_keys() -> None:
    rule = read().of(reference("r.io/team/web"))
    assert str(rule) == '"r.io/team" = signed by team.pub'
    assert [key.fingerprint for key in rule.keys] == [KEY.public.fingerprint]
    assert rule.signed_repository(reference("r.io/team/web:1")) == "r.io/team/web"
    assert (
        read().of(reference("mirror.io/team/x")).signed_repository(reference("x"))
        == "r.io/team/app"
    )


def test_a_key_may_be_written_where_it_is_used() -> None:
    data = f'[images]\n"r.io" = {{ signed-by = """{KEY.public.pem.decode()}""" }}'.encode()
    assert read(data).of(reference("r.io/x")).keys[0].fingerprint == KEY.public.fingerprint


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"[images", "not a TOML"),
        (b"\xff", "not a TOML"),
        (b"images = 1", "not a table"),
        (b'[images]\nbusybox = "accept"', "does not start with a registry"),
        (b'[images]\n"team/app" = "accept"', "does not start with a registry"),
        (b'[images]\n"r.io/UPPER" = "accept"', "is not a valid repository name"),
        (b'[images]\n"r.io/x:" = "accept"', "is not a valid tag"),
        (b'[images]\n"r.io/" = "accept"', "is not a valid repository name"),
        (b'[images]\n"r.io/*" = "accept"', "is not a valid repository name"),
        (b'[images]\n"r.io" = "maybe"', "'maybe' is not a valid rule"),
        (b'[images]\n"r.io" = true', "is not a valid rule"),
        (b'[images]\n"r.io" = {}', "is not a valid rule"),
        (b'[images]\n"r.io" = { signed-by = [] }', "is not a valid rule"),
        (b'[images]\n"r.io" = { signed-by = [1] }', "a list of public keys"),
        (b'[images]\n"r.io" = { signed-by = "k", all = true }', "unknown key 'all'"),
        (b'[images]\n"r.io" = { signed-by = "k", signed-as = "r.io/x:1" }', "without a tag"),
        (b'[images]\n"docker.io" = "accept"\n"index.docker.io" = "reject"', "has the same scope"),
    ],
)
def test_an_invalid_rule_is_refused(data: bytes, what: str) -> None:
    with pytest.raises(InvalidRequest, match=what):
        read(data)


def test_the_most_specific_rule_decides() -> None:
    texts = ["*", "r.io", "r.io/a", "r.io/a:1", "r.io/a/b"]
    weights = [parse_scope(text).weight for text in texts]
    assert weights == sorted(weights)


def test_other_tables_of_the_file_are_ignored() -> None:
    assert not read(b"[group.x]\naccess = 'run'").in_force


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "team.pub").write_bytes(KEY.public.pem)
    (tmp_path / "policy.toml").write_bytes(FILE)
    return tmp_path


def test_keys_are_named_from_the_files_directory_on(directory: Path) -> None:
    rules = signature_policy.RulesFile(str(directory / "policy.toml")).read()
    assert rules.of(reference("r.io/team/web")).keys
    assert rules.source.startswith(f"{directory}/policy.toml sha256:")


def test_a_change_of_any_file_is_detected(directory: Path) -> None:
    file = signature_policy.RulesFile(str(directory / "policy.toml"))
    file.read()
    assert not file.changed
    (directory / "team.pub").write_bytes(signing_keys.generate().public.pem)
    assert file.changed
    file.read()
    assert not file.changed
    os.replace(directory / "policy.toml", directory / "gone.toml")
    assert file.changed


def test_a_new_policy_file_is_noticed(tmp_path: Path) -> None:
    file = signature_policy.RulesFile(str(tmp_path / "policy.toml"))
    assert not file.read(required=False).in_force
    assert not file.changed
    (tmp_path / "policy.toml").write_bytes(b"[images]\n'*' = 'reject'")
    assert file.changed
    assert file.read().in_force
    with pytest.raises(InvalidRequest, match="No such file"):
        signature_policy.RulesFile(str(tmp_path / "other.toml")).read()


@pytest.mark.parametrize("name", ["policy.toml", "team.pub"])
def test_a_file_writable_by_other_users_is_refused(directory: Path, name: str) -> None:
    (directory / name).chmod(0o666)
    with pytest.raises(InvalidRequest, match="is writable by other users"):
        signature_policy.RulesFile(str(directory / "policy.toml")).read()


def test_a_fifo_is_not_waited_for(directory: Path) -> None:
    (directory / "team.pub").unlink()
    os.mkfifo(directory / "team.pub")
    with pytest.raises(InvalidRequest, match="not a regular file"):
        signature_policy.RulesFile(str(directory / "policy.toml")).read()


def test_a_file_without_end_is_not_read(directory: Path) -> None:
    (directory / "policy.toml").write_bytes(b"#" * (signature_policy.MAX_SIZE + 1))
    with pytest.raises(InvalidRequest, match="more than"):
        signature_policy.RulesFile(str(directory / "policy.toml")).read()


# -- checkpoints -------------------------------------------------------------------------------

OTHER = signing_keys.generate("ed25519")
CHECKPOINTS = b"""
[checkpoints]
"*" = { signed-by = ["other.pub"] }
"r.io/team" = { signed-by = ["team.pub", "other.pub"] }
"r.io/team/app" = "reject"
"r.io/own" = { signed-by = ["team.pub"] }
"""
MANIFEST = b'{"name": "one"}'


@pytest.fixture
def image_policy(tmp_path: Path) -> ImagePolicy:
    (tmp_path / "team.pub").write_bytes(KEY.public.pem)
    (tmp_path / "other.pub").write_bytes(OTHER.public.pem)
    (tmp_path / "policy.toml").write_bytes(CHECKPOINTS)
    paths = Paths(tmp_path / "root", tmp_path / "run")
    store = ImageStore(paths, LayerStore(paths), durable=False)
    return ImagePolicy(store, paths.trust, str(tmp_path / "policy.toml"))


@pytest.mark.parametrize(
    ("image", "key", "accepted"),
    [
        ("nginx", OTHER, True),
        ("nginx", KEY, False),
        ("r.io/team/web:1", KEY, True),
        ("r.io/team/web:1", OTHER, True),
        ("r.io/team/app", OTHER, False),
        ("r.io/own", KEY, True),
        ("r.io/own", OTHER, False),
        ("sha256:" + "ab" * 32, OTHER, True),
        ("sha256:" + "ab" * 32, KEY, False),
    ],
)
def test_a_checkpoint_needs_the_key_of_its_image(
    image_policy: ImagePolicy, image: str, key: signing_keys.PrivateKey, accepted: bool
) -> None:
    signers = image_policy.checkpoint_signers(MANIFEST, key.sign(MANIFEST))
    if accepted:
        image_policy.check_checkpoint(image, signers)
        return
    with pytest.raises(ImageRefused, match="its image is"):
        image_policy.check_checkpoint(image, signers)


def test_a_checkpoint_of_an_unknown_key_is_refused(image_policy: ImagePolicy) -> None:
    for signature in (
        b"",
        b"x",
        signing_keys.generate().sign(MANIFEST),
        KEY.sign(MANIFEST + b" "),
        KEY.sign(MANIFEST)[:-1],
    ):
        with pytest.raises(ImageRefused, match="this engine has not written it"):
            image_policy.checkpoint_signers(MANIFEST, signature)


def test_without_a_table_no_signature_is_accepted(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "root", tmp_path / "run")
    store = ImageStore(paths, LayerStore(paths), durable=False)
    with pytest.raises(ImageRefused):
        ImagePolicy(store, paths.trust).checkpoint_signers(MANIFEST, KEY.sign(MANIFEST))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b'[checkpoints]\n"*" = "accept"', "without a signature"),
        (b'[checkpoints]\n"*" = { signed-by = "k", signed-as = "r.io/x" }', "unknown key"),
        (b"checkpoints = 1", "not a table"),
    ],
)
def test_an_invalid_rule_about_checkpoints_is_refused(data: bytes, what: str) -> None:
    with pytest.raises(InvalidRequest, match=what):
        signature_policy.parse_rules(
            data, lambda name: KEY.public.pem, section=signature_policy.CHECKPOINTS
        )
