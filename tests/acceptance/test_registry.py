"""Images to and from a real registry, with the commands jaula, docker, skopeo and podman."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import containers
from harness.engine import PROJECT, PrivateEngine
from harness.registry import (
    PASSWORD,
    USER,
    Registry,
    TokenServer,
    basic_auth,
    make_certificates,
    token_server,
)
from harness.scripted_registry import Request, ScriptedRegistry, config_of, layer

pytestmark = pytest.mark.needs("docker-registry")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as made:
        yield made


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    directory = tmp_path_factory.mktemp("guarded")
    with Registry(directory, auth=basic_auth(directory)) as made:
        yield made


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenServer]:
    with token_server(tmp_path_factory.mktemp("tokens")) as made:
        yield made


@pytest.fixture(scope="module")
def by_token(tmp_path_factory: pytest.TempPathFactory, tokens: TokenServer) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("by-token"), auth=tokens.auth()) as made:
        yield made


def must(engine: PrivateEngine, program: str, *words: str, **options: object) -> str:
    done = engine.cli(program, *words, **options)
    assert done.returncode == 0, done.stdout + done.stderr + engine.log_tail()
    return done.stdout


@pytest.fixture
def pushed(engine: PrivateEngine, registry: Registry, busybox: str) -> str:
    """Return the name of an image that is in the registry and not in the engine."""
    name = f"{registry.name}/{containers.unique('team')}/box:1"
    must(engine, "jaula", "tag", busybox, name)
    must(engine, "jaula", "push", name)
    must(engine, "jaula", "rmi", name)
    return name


def digest_of(registry: Registry, name: str) -> str:
    path, _, tag = name.partition("/")[2].rpartition(":")
    return registry.manifest(path, tag)[0]


def test_push_and_pull_print_the_output_of_docker(
    engine: PrivateEngine, registry: Registry, busybox: str
) -> None:
    name = f"{registry.name}/{containers.unique('say')}"
    must(engine, "jaula", "tag", busybox, name)
    output = must(engine, "jaula", "push", name).splitlines()
    digest = digest_of(registry, f"{name}:latest")
    assert output[0] == "Using default tag: latest"
    assert output[1] == f"The push refers to repository [{name}]"
    assert output[-1].startswith(f"latest: digest: {digest} size: ")
    assert any(line.endswith((": Pushed", ": Layer already exists")) for line in output)
    must(engine, "jaula", "rmi", name)
    output = must(engine, "jaula", "pull", name).splitlines()
    assert output[:2] == [
        "Using default tag: latest",
        f"latest: Pulling from {name.partition('/')[2]}",
    ]
    assert output[-3:] == [
        f"Digest: {digest}",
        f"Status: Downloaded newer image for {name}:latest",
        f"{name}:latest",
    ]
    again = must(engine, "docker", "pull", name)
    assert f"Status: Image is up to date for {name}:latest" in again


def test_a_pulled_image_is_pushed_unchanged(
    engine: PrivateEngine, registry: Registry, pushed: str
) -> None:
    must(engine, "jaula", "pull", pushed)
    other = f"{registry.name}/{containers.unique('other')}:2"
    must(engine, "docker", "tag", pushed, other)
    output = must(engine, "docker", "push", other)
    assert digest_of(registry, other) == digest_of(registry, pushed)
    assert "Mounted from" in output


def test_run_pulls_a_missing_image(engine: PrivateEngine, pushed: str) -> None:
    done = engine.cli("jaula", "run", "--rm", "--pull", "never", pushed, "true")
    assert done.returncode == 125
    assert "No such image" in done.stderr
    for program in ("jaula", "docker"):
        done = engine.cli(program, "run", "--rm", pushed, "echo", "here")
        assert (done.returncode, done.stdout) == (0, "here\n"), done.stderr
        assert f"Unable to find image '{pushed}' locally" in done.stderr
        assert f"Status: Downloaded newer image for {pushed}" in done.stderr
        must(engine, "jaula", "rmi", pushed)


def test_run_pull_always_pulls(
    engine: PrivateEngine, registry: Registry, pushed: str, busybox: str
) -> None:
    must(engine, "jaula", "tag", "busybox", pushed)
    done = engine.cli("jaula", "run", "--rm", "--pull", "always", pushed, "true")
    assert done.returncode == 0, done.stderr
    assert "Digest: sha256:" in done.stderr
    assert "Unable to find" not in done.stderr
    quiet = engine.cli("jaula", "run", "--rm", "-q", "--pull", "always", pushed, "true")
    assert (quiet.returncode, quiet.stderr) == (0, "")


def test_an_image_has_its_digest_and_runs_by_it(
    engine: PrivateEngine, registry: Registry, pushed: str
) -> None:
    digest = digest_of(registry, pushed)
    by_digest = f"{pushed.rpartition(':')[0]}@{digest}"
    must(engine, "jaula", "pull", by_digest)
    for program in ("jaula", "docker"):
        rows = must(engine, program, "images", "--digests").splitlines()
        row = next(line for line in rows if pushed.rpartition(":")[0] in line)
        assert row.split()[1:3] == ["<none>", digest]
    document = json.loads(must(engine, "docker", "image", "inspect", by_digest))[0]
    assert by_digest in document["RepoDigests"]
    done = engine.cli("jaula", "run", "--rm", by_digest, "echo", "here")
    assert done.stdout == "here\n", done.stderr
    must(engine, "jaula", "rmi", by_digest)


def test_removing_the_last_tag_removes_the_digest(
    engine: PrivateEngine, registry: Registry, pushed: str
) -> None:
    must(engine, "jaula", "pull", pushed)
    output = must(engine, "jaula", "rmi", pushed)
    digest = digest_of(registry, pushed)
    assert f"Untagged: {pushed}" in output
    assert f"Untagged: {pushed.rpartition(':')[0]}@{digest}" in output


def test_every_tag_of_a_repository_is_pushed_and_pulled(
    engine: PrivateEngine, registry: Registry, busybox: str
) -> None:
    repository = f"{registry.name}/{containers.unique('all')}"
    for tag in ("a", "b"):
        must(engine, "jaula", "tag", busybox, f"{repository}:{tag}")
    must(engine, "jaula", "push", "-a", repository)
    must(engine, "jaula", "rmi", f"{repository}:a", f"{repository}:b")
    must(engine, "docker", "pull", "-a", repository)
    names = must(engine, "jaula", "images", "--format", "{{.Repository}}:{{.Tag}}").split()
    assert {f"{repository}:a", f"{repository}:b"} <= set(names)


@pytest.mark.parametrize("program", ["jaula", "docker"])
def test_a_missing_image_is_reported_in_dockers_words(
    engine: PrivateEngine, registry: Registry, program: str
) -> None:
    name = f"{registry.name}/nosuch:9"
    done = engine.cli(program, "pull", name)
    assert done.returncode == 1
    assert (
        f"Error response from daemon: manifest for {name} not found: "
        "manifest unknown: manifest unknown"
    ) in done.stderr
    reply = engine.request("POST", f"/images/create?fromImage={registry.name}/nosuch&tag=9")
    assert reply.status == 404
    done = engine.cli(program, "push", name)
    assert done.returncode == 1
    assert f"tag does not exist: {name}" in done.stderr


@pytest.mark.parametrize("program", ["jaula", "docker"])
def test_an_unreachable_registry_is_reported_in_dockers_words(
    engine: PrivateEngine, program: str
) -> None:
    done = engine.cli(program, "pull", "127.0.0.1:9/x:1")
    assert done.returncode == 1
    assert (
        'Get "http://127.0.0.1:9/v2/": dial tcp 127.0.0.1:9: connect: connection refused'
        in done.stderr
    )


@pytest.mark.parametrize("program", ["jaula", "docker"])
def test_login_checks_and_stores_a_password_and_logout_removes_it(
    engine: PrivateEngine, guarded: Registry, busybox: str, program: str
) -> None:
    name = f"{guarded.name}/{containers.unique('secret')}:1"
    must(engine, "jaula", "tag", busybox, name)
    refused = engine.cli(program, "push", name)
    assert refused.returncode == 1
    assert "no basic auth credentials" in refused.stderr
    wrong = engine.cli(program, "login", "-u", USER, "--password-stdin", guarded.name, input="no")
    assert wrong.returncode == 1
    assert f"login attempt to http://{guarded.name}/v2/ failed with status: 401" in wrong.stderr
    done = engine.cli(
        program, "login", "-u", USER, "--password-stdin", guarded.name, input=PASSWORD + "\n"
    )
    assert (done.returncode, done.stdout) == (0, "Login Succeeded\n"), done.stderr
    warning = "WARNING! Your password will be stored unencrypted in"
    assert (warning in done.stderr) == (program == "docker")
    file = Path(engine.environment()["DOCKER_CONFIG"]) / "config.json"
    assert file.stat().st_mode & 0o777 == 0o600
    kept = json.loads(file.read_text())["auths"][guarded.name]
    assert bool(kept) == (program == "docker")  # jaula's is in the kernel's keyring
    must(engine, program, "push", name)
    must(engine, program, "rmi", name)
    must(engine, program, "pull", name)
    again = must(engine, program, "login", guarded.name)
    assert "Authenticating with existing credentials..." in again
    assert "Removing login credentials" in must(engine, program, "logout", guarded.name)
    assert engine.cli(program, "pull", name).returncode == 1
    assert PASSWORD not in engine.log_tail(1 << 20)


def test_a_credential_helper_stores_the_password(
    engine: PrivateEngine, guarded: Registry, busybox: str, tmp_path: Path
) -> None:
    helper = tmp_path / "docker-credential-kept"
    helper.write_text(
        '#!/bin/sh\ncase $1 in store) cat >"$0.kept";; '
        'get) cat "$0.kept" 2>/dev/null || { echo "credentials not found in native keychain"; '
        'exit 1; };; erase) rm -f "$0.kept";; esac\n'
    )
    helper.chmod(0o755)
    file = tmp_path / "config.json"
    file.write_text('{"credsStore": "kept"}')
    environment = engine.environment() | {
        "DOCKER_CONFIG": str(tmp_path),
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    name = f"{guarded.name}/{containers.unique('helped')}:1"
    must(engine, "jaula", "tag", busybox, name)
    words = ("login", "-u", USER, "--password-stdin", guarded.name)
    done = engine.cli("jaula", *words, input=PASSWORD, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Login Succeeded\n", "")
    assert PASSWORD not in file.read_text()
    for program in ("jaula", "docker"):
        must(engine, program, "push", name, env=environment)
    must(engine, "jaula", "logout", guarded.name, env=environment)
    assert engine.cli("docker", "push", name, env=environment).returncode == 1


def test_docker_reads_the_keyring_through_our_helper(
    engine: PrivateEngine, guarded: Registry, busybox: str, tmp_path: Path
) -> None:
    helper = tmp_path / "docker-credential-jaula"
    helper.write_text(
        f"#!/bin/sh\nPYTHONPATH={PROJECT}/src exec {sys.executable} "
        '-m jaula.cli.credential_helper "$@"\n'
    )
    helper.chmod(0o755)
    environment = engine.environment() | {
        "DOCKER_CONFIG": str(tmp_path),
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    name = f"{guarded.name}/{containers.unique('found')}:1"
    must(engine, "jaula", "tag", busybox, name)
    words = ("login", "-u", USER, "--password-stdin", guarded.name)
    done = engine.cli("jaula", *words, input=PASSWORD, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert PASSWORD not in (tmp_path / "config.json").read_text()
    must(engine, "docker", "push", name, env=environment)
    listed = subprocess.run(
        [helper, "list"], env=environment, input="", capture_output=True, text=True
    )
    assert json.loads(listed.stdout) == {guarded.name: USER}
    must(engine, "docker", "logout", guarded.name, env=environment)
    assert engine.cli("jaula", "push", name, env=environment).returncode == 1
    done = engine.cli("docker", *words, input=PASSWORD, env=environment)
    assert done.returncode == 0, done.stderr
    must(engine, "jaula", "push", name, env=environment)
    must(engine, "jaula", "logout", guarded.name, env=environment)
    requested = subprocess.run(
        [helper, "get"], env=environment, input=guarded.name, capture_output=True, text=True
    )
    assert (requested.returncode, requested.stdout) == (
        1,
        "credentials not found in native keychain\n",
    )


def test_a_password_is_stored_in_the_file_on_request(
    engine: PrivateEngine, guarded: Registry, busybox: str
) -> None:
    name = f"{guarded.name}/{containers.unique('clear')}:1"
    must(engine, "jaula", "tag", busybox, name)
    words = ("login", "--plain-text", "-u", USER, "--password-stdin", guarded.name)
    done = engine.cli("jaula", *words, input=PASSWORD)
    assert done.returncode == 0
    assert "WARNING! Your password will be stored unencrypted in" in done.stderr
    must(engine, "docker", "push", name)  # finds it, too
    must(engine, "jaula", "logout", guarded.name)
    assert engine.cli("docker", "push", name).returncode == 1


def test_a_token_is_fetched_for_each_operation(
    engine: PrivateEngine, by_token: Registry, tokens: TokenServer, busybox: str
) -> None:
    name = f"{by_token.name}/{containers.unique('token')}:1"
    must(engine, "jaula", "tag", busybox, name)
    done = engine.cli(
        *("jaula", "login", "--plain-text", "-u", USER, "--password-stdin", by_token.name),
        input=PASSWORD,
    )
    assert done.returncode == 0, done.stderr
    # The token server gave an identity token in place of the password.
    file = Path(engine.environment()["DOCKER_CONFIG"]) / "config.json"
    assert json.loads(file.read_text())["auths"][by_token.name]["identitytoken"] == "kept"
    tokens.seen.clear()
    must(engine, "jaula", "push", name)
    path = name.partition("/")[2].rpartition(":")[0]
    assert {scope for seen in tokens.seen for scope in seen.get("scope", ())} == {
        f"repository:{path}:pull,push"
    }
    must(engine, "jaula", "rmi", name)
    tokens.seen.clear()
    must(engine, "jaula", "pull", name)
    assert [seen.get("scope") for seen in tokens.seen] == [[f"repository:{path}:pull"]]
    must(engine, "jaula", "logout", by_token.name)
    refused = engine.cli("jaula", "pull", name)
    assert refused.returncode == 1
    assert "unauthorized: who are you" in refused.stderr


def test_tls_is_verified_by_the_ca_of_the_registry(
    new_engine: object, tmp_path: Path, busybox_archive: Path
) -> None:
    directory = tmp_path / "tls"
    make_certificates(directory)
    certs = tmp_path / "certs.d"
    with Registry(directory, tls=True) as registry:
        own = certs / registry.name
        own.mkdir(parents=True)
        other = tmp_path / "other"
        make_certificates(other)
        shutil.copy(other / "ca.crt", own / "ca.crt")
        engine: PrivateEngine = new_engine("--registry-certs", str(certs))  # type: ignore[operator]
        must(engine, "jaula", "load", "-i", str(busybox_archive))
        name = f"{registry.name}/box:1"
        must(engine, "jaula", "tag", "busybox", name)
        refused = engine.cli("jaula", "push", name)
        assert refused.returncode == 1
        assert "failed to verify certificate" in refused.stderr
        shutil.copy(directory / "ca.crt", own / "ca.crt")
        must(engine, "jaula", "push", name)
        must(engine, "jaula", "rmi", name)
        must(engine, "docker", "pull", name)


def test_skopeo_and_jaula_read_each_others_pushes(
    engine: PrivateEngine, registry: Registry, pushed: str, tmp_path: Path
) -> None:
    def skopeo(*words: str) -> str:
        done = subprocess.run(
            ["skopeo", *words], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    digest = digest_of(registry, pushed)
    result = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{pushed}"))
    assert result["Digest"] == digest
    layout = f"oci:{tmp_path}/layout:box"
    plain = ("--insecure-policy", "copy")
    skopeo(*plain, "--src-tls-verify=false", f"docker://{pushed}", layout)
    for number, flags in enumerate(((), ("--dest-compress-format", "zstd"), ("-f", "v2s2"))):
        name = f"{registry.name}/{containers.unique('skopeo')}:{number}"
        skopeo(*plain, *flags, "--dest-tls-verify=false", layout, f"docker://{name}")
        must(engine, "jaula", "pull", name)
        done = engine.cli("jaula", "run", "--rm", name, "echo", "here")
        assert done.stdout == "here\n", done.stderr
        again = f"{registry.name}/{containers.unique('again')}:1"
        must(engine, "jaula", "tag", name, again)
        must(engine, "jaula", "push", again)
        assert digest_of(registry, again) == digest_of(registry, name)


def test_podman_pulls_and_runs_a_pushed_image(
    registry: Registry, pushed: str, tmp_path: Path
) -> None:
    base = tmp_path / "podman"
    done = subprocess.run(
        [
            *("podman", "--root", str(base / "root"), "--runroot", str(base / "run")),
            *("--storage-driver", "vfs", "pull", "-q", "--tls-verify=false", pushed),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "CONTAINERS_REGISTRIES_CONF": os.devnull},
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip()) == 64


@pytest.mark.needs("dockerd")
def test_dockerd_and_jaula_pull_each_others_pushes(
    engine: PrivateEngine, registry: Registry, pushed: str
) -> None:
    base = Path(tempfile.mkdtemp(prefix="jltd"))  # short: sockets lie below it
    socket = f"unix://{base}/s"
    daemon = subprocess.Popen(
        [
            "dockerd",
            *("--data-root", str(base / "docker"), "--exec-root", str(base / "exec")),
            *("-H", socket, "--pidfile", str(base / "pid"), "--bridge", "none"),
            *("--iptables=false", "--ip6tables=false", "--storage-driver", "vfs"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def theirs(*words: str) -> str:
        done = subprocess.run(
            ["docker", "-H", socket, *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        deadline = time.monotonic() + 60
        while subprocess.run(["docker", "-H", socket, "version"], capture_output=True).returncode:
            assert daemon.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert f"Digest: {digest_of(registry, pushed)}" in theirs("pull", pushed)
        back = f"{registry.name}/{containers.unique('back')}:1"
        theirs("tag", pushed, back)
        theirs("push", back)
        must(engine, "jaula", "pull", back)
        done = engine.cli("jaula", "run", "--rm", back, "echo", "here")
        assert done.stdout == "here\n", done.stderr
    finally:
        daemon.terminate()
        daemon.wait(30)
        # dockerd mounts its data root on itself, to make it shared, and leaves that behind
        subprocess.run(["umount", str(base / "docker")], capture_output=True)
        shutil.rmtree(base, ignore_errors=True)


def test_the_platform_selects_an_image_of_an_index(
    engine: PrivateEngine, registry: Registry, pushed: str
) -> None:
    path, _, tag = pushed.partition("/")[2].rpartition(":")
    _, headers, body = registry.ask("GET", f"/v2/{path}/manifests/{tag}")
    manifest = {
        "mediaType": headers["content-type"],
        "digest": headers["docker-content-digest"],
        "size": len(body),
    }
    platforms = [
        {"os": "linux", "architecture": "amd64"},
        {"os": "linux", "architecture": "arm64", "variant": "v8"},
    ]
    for kind in (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    ):
        index = {
            "schemaVersion": 2,
            "mediaType": kind,
            "manifests": [manifest | {"platform": platform} for platform in platforms],
        }
        status, _, output = registry.ask(
            "PUT", f"/v2/{path}/manifests/many", json.dumps(index).encode(), {"Content-Type": kind}
        )
        assert status == 201, output
        many = f"{registry.name}/{path}:many"
        digest = digest_of(registry, many)
        assert f"Digest: {digest}" in must(engine, "jaula", "pull", many)
        document = json.loads(must(engine, "docker", "image", "inspect", many))[0]
        assert f"{registry.name}/{path}@{digest}" in document["RepoDigests"]
        none = engine.cli("jaula", "pull", "--platform", "linux/s390x", many)
        assert none.returncode == 1
        assert "no matching manifest for linux/s390x in the manifest list entries" in none.stderr
        result = engine.request("GET", f"/distribution/{many}/json").json()
        assert result["Descriptor"]["digest"] == digest
        assert result["Platforms"] == platforms
        printed = json.loads(must(engine, "jaula", "manifest", "inspect", many))
        assert printed == index
        verbose = json.loads(must(engine, "jaula", "manifest", "inspect", "-v", many))
        assert [entry["Descriptor"]["platform"] for entry in verbose] == platforms
    wrong = engine.cli("docker", "pull", "--platform", "linux/s390x", pushed)
    assert wrong.returncode == 1
    assert "does not match the specified platform: wanted linux/s390x" in wrong.stderr


def test_run_pulls_an_image_stored_for_another_platform(
    engine: PrivateEngine, registry: Registry, pushed: str
) -> None:
    with ScriptedRegistry(
        layer("arm"), config=config_of(layer("arm"), architecture="arm64")
    ) as arm:
        other = f"{arm.name}/box:1"
        must(engine, "jaula", "pull", "--platform", "linux/arm64", other)
        must(engine, "jaula", "tag", other, pushed)
        must(engine, "jaula", "rmi", other)
    never = ("run", "--rm", "--platform", "linux/amd64", "--pull", "never", pushed, "true")
    done = engine.cli("jaula", *never)
    assert done.returncode == 125
    assert "wanted linux/amd64, actual: linux/arm64" in done.stderr
    done = engine.cli("jaula", "run", "--rm", "--platform", "linux/amd64", pushed, "echo", "here")
    assert (done.returncode, done.stdout) == (0, "here\n"), done.stderr


def test_pulls_and_pushes_are_events(
    engine: PrivateEngine, registry: Registry, pushed: str
) -> None:
    must(engine, "jaula", "pull", pushed)
    reply = engine.request("GET", f"/events?since=0&until={time.time() + 0.5}")
    events = [json.loads(line) for line in reply.body.splitlines()]
    reported = {(event["Action"], event["Actor"]["ID"]) for event in events}
    assert {("push", pushed), ("pull", pushed)} <= reported


def test_an_interrupted_pull_leaves_no_files(engine: PrivateEngine) -> None:
    def stall(request: Request) -> None:
        request.head(200, "application/octet-stream", Content_Length=str(len(data)))
        request.wfile.write(data[:300])  # less than a header of tar, which would be read
        request.wfile.flush()
        stalled.set()
        time.sleep(60)

    stalled = threading.Event()
    with ScriptedRegistry(layer("stalled")) as registry:
        data = registry.layers[0]
        registry.scripts[registry.blob_path(data)] = stall
        before = sorted(os.listdir(engine.root / "lib" / "images" / "blobs" / "sha256"))
        pull = subprocess.Popen(
            [str(PROJECT / "jaula"), "pull", f"{registry.name}/box:1"],
            env=engine.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert stalled.wait(30)
        pull.send_signal(signal.SIGINT)
        out, error = pull.communicate(timeout=30)
        assert pull.returncode == 130, out + error
        assert "Traceback" not in out + error
        deadline = time.monotonic() + 30
        while sorted(os.listdir(engine.root / "lib" / "images" / "blobs" / "sha256")) != before:
            assert time.monotonic() < deadline, engine.log_tail()
            time.sleep(0.05)
