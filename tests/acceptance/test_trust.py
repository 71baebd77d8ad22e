"""Signed images, interoperability with cosign and skopeo, and a policy that requires signatures."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import containers
from harness.engine import PrivateEngine
from harness.registry import Registry

pytestmark = [pytest.mark.needs("docker-registry"), pytest.mark.needs("cosign")]

PASSWORD = "a word"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as made:
        yield made


@pytest.fixture
def keys(tmp_path: Path, engine: PrivateEngine) -> Path:
    """Return a directory with the keys ``team`` (ECDSA) and ``other`` (Ed25519)."""
    for name, algorithm in (("team", "ecdsa"), ("other", "ed25519")):
        jaula(engine, "trust", "generate-key", "--algorithm", algorithm, str(tmp_path / name))
    return tmp_path


def with_password(engine: PrivateEngine) -> dict[str, str]:
    return engine.environment() | {"COSIGN_PASSWORD": PASSWORD}


def jaula(engine: PrivateEngine, *words: str) -> str:
    done = engine.cli("jaula", *words, env=with_password(engine))
    assert done.returncode == 0, done.stdout + done.stderr + engine.log_tail()
    return done.stdout


def refused(engine: PrivateEngine, *words: str, program: str = "jaula") -> tuple[int, str]:
    """Return exit status and standard error of a command that must fail."""
    done = engine.cli(program, *words, env=with_password(engine))
    assert done.returncode != 0, done.stdout
    return done.returncode, done.stderr


def command(*words: str, password: str = PASSWORD, **more: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COSIGN_PASSWORD": password, **more}
    return subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=100,
        env=environment,
        stdin=subprocess.DEVNULL,
    )


def push(engine: PrivateEngine, registry: Registry, image: str, path: str = "team") -> str:
    name = f"{registry.name}/{path}/{containers.unique('app')}:1"
    jaula(engine, "tag", image, name)
    jaula(engine, "push", "-q", name)
    return name


def at(registry: Registry, name: str) -> str:
    """Return a name with its digest at the registry."""
    path, _, tag = name.partition("/")[2].rpartition(":")
    return f"{name.rpartition(':')[0]}@{registry.manifest(path, tag)[0]}"


def cosign_verify(key: Path, name: str, *, referrers: bool) -> subprocess.CompletedProcess[str]:
    words = ["cosign", "verify", "--insecure-ignore-tlog", "--allow-insecure-registry"]
    more = {}
    if referrers:
        words.append("--experimental-oci11")
        more["COSIGN_EXPERIMENTAL"] = "1"
    return command(*words, "--key", str(key), name, **more)


@pytest.mark.parametrize("referrers", [False, True])
def test_cosign_verifies_our_signatures(
    engine: PrivateEngine, registry: Registry, busybox: str, keys: Path, referrers: bool
) -> None:
    name = push(engine, registry, busybox)
    flags = ("--referrer",) if referrers else ()
    for key in ("team", "other"):
        jaula(
            engine, "image", "sign", *flags, "--key", f"{keys}/{key}.key", "-a", f"by={key}", name
        )
    for key in ("team", "other"):
        done = cosign_verify(keys / f"{key}.pub", name, referrers=referrers)
        assert done.returncode == 0, done.stderr
        [result] = json.loads(done.stdout)
        assert result["optional"] == {"by": key}
        assert result["critical"]["identity"]["docker-reference"] == name.rpartition(":")[0]
    output = jaula(engine, "trust", "inspect", "--key", f"{keys}/team.pub", name)
    assert [line.split()[0] for line in output.splitlines()[1:]] == [
        f"{keys}/team.pub",
        "<unknown>",
    ]


@pytest.mark.parametrize("referrers", [False, True])
def test_signatures_of_cosign_are_verified(
    engine: PrivateEngine, registry: Registry, busybox: str, tmp_path: Path, referrers: bool
) -> None:
    made = subprocess.run(
        ["cosign", "generate-key-pair"],
        cwd=tmp_path,
        env=os.environ | {"COSIGN_PASSWORD": PASSWORD},
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    assert made.returncode == 0, made.stderr
    name = push(engine, registry, busybox)
    words = ["cosign", "sign", "--tlog-upload=false", "--allow-insecure-registry", "-y"]
    more = {}
    if referrers:
        words.append("--registry-referrers-mode=oci-1-1")
        more["COSIGN_EXPERIMENTAL"] = "1"
    done = command(*words, "--key", f"{tmp_path}/cosign.key", at(registry, name), **more)
    assert done.returncode == 0, done.stderr
    told = jaula(engine, "trust", "verify", "--key", f"{tmp_path}/cosign.pub", name)
    assert told.splitlines()[0] == at(registry, name)
    # Its private key signs here as well, beside its own signature.
    jaula(engine, "image", "sign", "--key", f"{tmp_path}/cosign.key", "-a", "here=1", name)
    assert len(jaula(engine, "trust", "inspect", name).splitlines()) == 3
    assert cosign_verify(tmp_path / "cosign.pub", name, referrers=referrers).returncode == 0


def skopeo(directory: Path, registry: Registry, *words: str, key: Path | None = None) -> str:
    """Run skopeo under a policy that requires signatures by ``key`` and return its errors."""
    rule: dict[str, object] = {"type": "insecureAcceptAnything"}
    if key is not None:
        rule = {
            "type": "sigstoreSigned",
            "keyPath": str(key),
            "signedIdentity": {"type": "matchRepository"},
        }
    policy = directory / "containers-policy.json"
    policy.write_text(json.dumps({"default": [rule]}))
    settings = directory / "registries.d"
    settings.mkdir(exist_ok=True)
    (settings / "all.yaml").write_text(
        json.dumps({"docker": {registry.name: {"use-sigstore-attachments": True}}})
    )
    done = command("skopeo", "--policy", str(policy), "--registries.d", str(settings), *words)
    return done.stderr if done.returncode else ""


def test_skopeo_accepts_only_signed_images(
    engine: PrivateEngine, registry: Registry, busybox: str, keys: Path
) -> None:
    name = push(engine, registry, busybox)
    copy = ("copy", "--src-tls-verify=false", f"docker://{name}")
    wants = keys / "team.pub"
    assert "signature was required" in skopeo(keys, registry, *copy, f"dir:{keys}/a", key=wants)
    jaula(engine, "image", "sign", "--key", f"{keys}/other.key", name)
    assert "verification failed" in skopeo(keys, registry, *copy, f"dir:{keys}/b", key=wants)
    jaula(engine, "trust", "sign", "--key", f"{keys}/team.key", name)
    assert skopeo(keys, registry, *copy, f"dir:{keys}/c", key=wants) == ""
    assert skopeo(keys, registry, *copy, f"dir:{keys}/d", key=keys / "other.pub") == ""


def test_signatures_of_skopeo_are_verified(
    engine: PrivateEngine, registry: Registry, busybox: str, tmp_path: Path
) -> None:
    word = tmp_path / "word"
    word.write_text("x\n")
    made = command(
        *("skopeo", "generate-sigstore-key", "--output-prefix", f"{tmp_path}/k"),
        *("--passphrase-file", str(word)),
    )
    assert made.returncode == 0, made.stderr
    source = push(engine, registry, busybox)
    target = f"{source.rpartition(':')[0]}-signed:2"
    assert not skopeo(
        tmp_path, registry,
        *("copy", "--src-tls-verify=false", "--dest-tls-verify=false"),
        *("--sign-by-sigstore-private-key", f"{tmp_path}/k.private"),
        *("--sign-passphrase-file", str(word), f"docker://{source}", f"docker://{target}"),
    )  # fmt: skip
    told = jaula(
        engine, "trust", "verify", "--format", "json", "--key", f"{tmp_path}/k.pub", target
    )
    assert json.loads(told)["SignedAs"] == target  # with its tag, so for that one alone
    other = f"{target.rpartition(':')[0]}:3"
    assert not skopeo(
        tmp_path, registry,
        *("copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--remove-signatures"),
        *(f"docker://{target}", f"docker://{other}"),
    )  # fmt: skip
    status, told = refused(engine, "trust", "verify", "--key", f"{tmp_path}/k.pub", other)
    assert status == 1
    assert f"1 for another name ({target})" in told


def test_an_image_that_differs_at_the_registry_is_not_signed(
    engine: PrivateEngine, registry: Registry, busybox: str, keys: Path, tmp_path: Path
) -> None:
    name = push(engine, registry, busybox)
    before = at(registry, name)
    other = push(engine, registry, jaula_commit(engine, busybox))
    assert not skopeo(
        tmp_path, registry,
        *("copy", "--src-tls-verify=false", "--dest-tls-verify=false"),
        *(f"docker://{other}", f"docker://{name}"),
    )  # fmt: skip
    status, told = refused(engine, "image", "sign", "--key", f"{keys}/team.key", name)
    assert status == 1
    assert f"{name} is {at(registry, name).partition('@')[2]} at the registry" in told
    jaula(engine, "image", "sign", "--key", f"{keys}/team.key", before)


def jaula_commit(engine: PrivateEngine, image: str) -> str:
    name = containers.unique("made")
    jaula(engine, "create", "--name", name, image, "true")
    made = f"{name}:1"
    jaula(engine, "commit", "-m", name, name, made)
    jaula(engine, "rm", name)
    return made


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("image", "sign", "NAME"), "a private key is required: --key FILE"),
        (("image", "sign", "--key", "/nonexistent", "NAME"), "cannot read /nonexistent"),
        (("image", "sign", "--key", "KEYS/team.pub", "NAME"), "it holds no private key"),
        (("image", "sign", "--key", "KEYS/team.key", "NAME-not"), "not found"),
        (("image", "sign", "--key", "KEYS/team.key", "-a", "x", "NAME"), "NAME=VALUE"),
        (("trust", "verify", "NAME"), "a public key is required: --key FILE"),
        (("trust", "verify", "--key", "KEYS/team.key", "NAME"), "holds a private key"),
        (("trust", "verify", "--key", "KEYS/team.pub", "NAME"), "it has no signature"),
        (("trust", "generate-key", "KEYS/team"), "KEYS/team.key already exists"),
        (("trust", "generate-key", "--algorithm", "rsa", "KEYS/new"), "unknown algorithm 'rsa'"),
    ],
)
def test_invalid_input_is_one_clear_line(
    engine: PrivateEngine, registry: Registry, busybox: str, keys: Path,
    words: tuple[str, ...], told: str,
) -> None:  # fmt: skip
    name = push(engine, registry, busybox)

    def filled(text: str) -> str:
        return (
            text.replace("NAME-not", f"{name}-not").replace("NAME", name).replace("KEYS", str(keys))
        )

    status, result = refused(engine, *(filled(word) for word in words))
    assert status in (1, 125)
    assert filled(told) in result or told in result
    assert "Traceback" not in result


def test_a_key_with_another_password_is_refused(
    engine: PrivateEngine, registry: Registry, busybox: str, keys: Path
) -> None:
    name = push(engine, registry, busybox)
    environment = engine.environment() | {"COSIGN_PASSWORD": "another"}
    words = ("image", "sign", "--key", f"{keys}/team.key", name)
    done = engine.cli("jaula", *words, env=environment)
    assert done.returncode == 1
    assert "the password is wrong, or the file is damaged" in done.stderr
    done = engine.cli("jaula", *words)
    assert "set COSIGN_PASSWORD, or use a terminal" in done.stderr
    assert (keys / "team.key").stat().st_mode & 0o777 == 0o600


# -- an engine with a policy ------------------------------------------------------------------


class Guarded:
    """An engine with an image policy, and images that it allows or refuses."""

    def __init__(self, engine: PrivateEngine, policy: Path, registry: Registry) -> None:
        self.engine, self.policy, self.registry = engine, policy, registry

    def rules(self, **rules: str) -> None:
        """Return rules by name, such as ``team`` and ``all``: paths below the registry."""
        lines = []
        for path, rule in rules.items():
            scope = "*" if path == "all" else f"{self.registry.name}/{path}".rstrip("/_")
            lines.append(f'"{scope}" = {rule}')
        self.policy.write_text("\n".join(("[images]", *lines)))

    def run(self, image: str, program: str = "jaula") -> tuple[int, str]:
        done = self.engine.cli(program, "run", "--rm", image, "echo", "ran")
        return done.returncode, done.stdout + done.stderr


SIGNED = '{ signed-by = ["team.pub"] }'


@pytest.fixture
def guarded(
    new_engine: Callable[..., PrivateEngine],
    registry: Registry,
    keys: Path,
    busybox_archive: Path,
) -> Guarded:
    policy = keys / "policy.toml"
    policy.write_text("[images]\n")
    engine = new_engine("--policy", str(policy))
    jaula(engine, "load", "-q", "-i", str(busybox_archive))
    return Guarded(engine, policy, registry)


@pytest.mark.parametrize("program", ["jaula", "docker"])
def test_run_of_a_refused_image_names_the_rule(guarded: Guarded, keys: Path, program: str) -> None:
    engine = guarded.engine
    unsigned = push(engine, guarded.registry, "busybox")
    signed = push(engine, guarded.registry, "busybox")
    jaula(engine, "image", "sign", "--key", f"{keys}/team.key", signed)
    jaula(engine, "rmi", unsigned, signed)
    guarded.rules(team=SIGNED)
    rule = f'"{guarded.registry.name}/team" = signed by team.pub'
    status, told = guarded.run(unsigned, program)
    assert status == 125
    assert f"image {unsigned} is refused by the image policy, rule {rule}" in told
    assert "it has no signature" in told
    status, told = guarded.run(signed, program)
    assert (status, "ran" in told.splitlines()) == (0, True), told
    assert guarded.run("busybox", program) == (0, "ran\n")
    pulled = engine.cli(program, "pull", unsigned)
    assert (pulled.returncode, rule in pulled.stderr) == (1, True)
    reply = engine.request("POST", "/containers/create", {"Image": unsigned, "Cmd": ["true"]})
    assert reply.status == 404  # it did not come in at all


def test_the_policy_applies_at_each_start(guarded: Guarded, keys: Path) -> None:
    engine = guarded.engine
    name = push(engine, guarded.registry, "busybox")
    jaula(engine, "create", "--name", "box", name, "echo", "started")
    assert jaula(engine, "start", "-a", "box") == "started\n"
    guarded.rules(team=SIGNED)
    status, told = refused(engine, "start", "-a", "box")
    assert status == 1
    assert "no signatures of it are stored; pull it again" in told
    jaula(engine, "image", "sign", "--key", f"{keys}/team.key", name)
    jaula(engine, "pull", "-q", name)
    assert jaula(engine, "start", "-a", "box") == "started\n"
    guarded.rules(all='"reject"')
    assert '"*" = "reject"' in refused(engine, "start", "box")[1]
    guarded.policy.write_text("nonsense")
    assert "while the policy cannot be read" in refused(engine, "start", "box")[1]
    assert "while the policy cannot be read" in refused(engine, "trust", "policy")[1]
    guarded.rules()
    assert jaula(engine, "start", "-a", "box") == "started\n"
    assert jaula(engine, "trust", "policy").startswith("No image policy is in force")


def test_the_policy_applies_to_automatic_restarts(guarded: Guarded) -> None:
    engine = guarded.engine
    jaula(engine, "run", "-d", "--name", "box", "--restart", "always", "busybox", "sleep", "600")
    guarded.rules(all='"reject"')
    pid = json.loads(jaula(engine, "inspect", "box"))[0]["State"]["Pid"]
    os.kill(pid, 9)
    containers_end = json.loads(jaula(engine, "inspect", "box"))
    for _ in range(100):
        state = containers_end[0]["State"]
        if not state["Running"] and "image policy" in state["Error"]:
            break
        jaula(engine, "info")
        containers_end = json.loads(jaula(engine, "inspect", "box"))
    else:
        raise AssertionError(containers_end[0]["State"])


def test_an_archive_does_not_bypass_the_policy(guarded: Guarded, tmp_path: Path) -> None:
    engine = guarded.engine
    name = push(engine, guarded.registry, "busybox")
    jaula(engine, "save", "-o", str(tmp_path / "a.tar"), name)
    jaula(engine, "rmi", name)
    guarded.rules(team=SIGNED)
    status, told = refused(engine, "load", "-i", str(tmp_path / "a.tar"))
    assert status == 1
    assert f"image {name} is refused by the image policy" in told
    assert name not in jaula(engine, "images", "--format", "{{.Repository}}:{{.Tag}}")


def test_a_build_refuses_a_base_image_that_the_policy_refuses(
    guarded: Guarded, tmp_path: Path
) -> None:
    engine = guarded.engine
    name = push(engine, guarded.registry, "busybox")
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nRUN echo made > /f\n")
    build = ("build", "-t", "mine:1", "--build-arg", f"BASE={name}", str(context))
    jaula(engine, *build)
    guarded.rules(team=SIGNED)
    rule = f'rule "{guarded.registry.name}/team" = signed by team.pub'
    assert rule in refused(engine, *build)[1]
    jaula(engine, "rmi", "-f", name)
    assert rule in refused(engine, *build)[1]  # it is not fetched either
    assert guarded.run("mine:1") == (0, "ran\n")
    (context / "Dockerfile").write_text(f"FROM busybox\nCOPY --from={name} /etc /e\n")
    assert rule in refused(engine, "build", str(context))[1]


def test_a_list_is_signed_with_its_manifests(guarded: Guarded, keys: Path) -> None:
    engine, registry = guarded.engine, guarded.registry
    member = push(engine, registry, "busybox")
    name = f"{registry.name}/team/{containers.unique('list')}:1"
    jaula(engine, "manifest", "create", name, member)
    jaula(engine, "manifest", "push", "--purge", name)
    guarded.rules(team=SIGNED)
    assert "it has no signature" in refused(engine, "pull", name)[1]
    jaula(engine, "image", "sign", "--key", f"{keys}/team.key", name)
    jaula(engine, "pull", "-q", name)
    assert guarded.run(name) == (0, "ran\n")
    copy = ("copy", "--src-tls-verify=false", f"docker://{name}", f"dir:{keys}/copy")
    # skopeo wants the image itself to be signed.
    assert "signature was required" in skopeo(keys, registry, *copy, key=keys / "team.pub")
    told = jaula(engine, "image", "sign", "-r", "--key", f"{keys}/team.key", name)
    assert told.count("Signed ") == 2
    assert not skopeo(keys, registry, *copy, key=keys / "team.pub")


def test_the_policy_is_shown_with_the_deciding_rule(guarded: Guarded) -> None:
    engine, registry = guarded.engine, guarded.registry.name
    guarded.rules(all='"reject"', team=SIGNED)
    output = jaula(engine, "trust", "policy").splitlines()
    assert [line.split()[:2] for line in output[1:]] == [
        ["*", "reject"],
        [f"{registry}/team", "signed-by"],
    ]
    decides = jaula(engine, "trust", "policy", "--format", "{{.Images}}", f"{registry}/team/x:2")
    assert decides == f"{registry}/team\n"


def test_verify_names_the_rule(guarded: Guarded, keys: Path) -> None:
    engine = guarded.engine
    name = push(engine, guarded.registry, "busybox")

    def row(*words: str) -> dict[str, str]:
        done = engine.cli("jaula", "verify", "--format", "json", *words)
        rows = json.loads(done.stdout)
        [result] = [r for r in rows if r["id"] == "image policy"]
        return result

    with containers.running(engine, name) as box:
        result = row(box)
        assert (result["requested"], result["verdict"]) == ("no policy is in effect", "holds")
        assert row("--host")["requested"] == "no policy is in effect"
        guarded.rules(team=SIGNED)
        assert row(box)["verdict"] == "FAILS"
        jaula(engine, "image", "sign", "--key", f"{keys}/team.key", name)  # and it is known here
        result = row(box)
        assert (result["verdict"], "signed by team.pub" in result["effective"]) == ("holds", True)
        assert row("--host")["requested"] == "rules"
        guarded.rules(team='"reject"')
        assert row(box)["verdict"] == "FAILS"


def test_an_engine_with_an_unreadable_policy_does_not_start(
    new_engine: Callable[..., PrivateEngine], tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[images]\nbusybox = "accept"\n')
    engine = new_engine("--policy", str(policy), start=False)
    with pytest.raises(AssertionError, match="does not start with a registry"):
        engine.start()
    engine.process = None
