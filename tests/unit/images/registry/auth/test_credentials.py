"""Credentials on disk: Docker's file, its helpers, and untrusted files."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path

import pytest

from jaula.errors import InvalidRequest, JaulaError, Unavailable
from jaula.images.registry.auth.authfile import auth_file_path
from jaula.images.registry.auth.credentials import CredentialFile, Login
from jaula.images.registry.auth.keyring_credentials import available

HUB = "https://index.docker.io/v1/"
HELPER = """#!/bin/sh
read -r given
echo "$1 $given" >>"$HELPER_LOG"
case $1 in
get) cat "$HELPER_LOG.answer" 2>/dev/null && exit 0
     echo "credentials not found in native keychain"; exit 1;;
store) exit 0;;
erase) exit 0;;
esac
"""


@pytest.fixture
def file(tmp_path: Path) -> CredentialFile:
    return CredentialFile(str(tmp_path / "docker" / "config.json"))


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the log of a helper named ``test``."""
    program = tmp_path / "bin" / "docker-credential-test"
    program.parent.mkdir()
    program.write_text(HELPER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HELPER_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


def write(file: CredentialFile, document: object) -> None:
    Path(file.path).parent.mkdir(parents=True, exist_ok=True)
    Path(file.path).write_text(json.dumps(document))


def test_without_a_file_no_credentials_are_returned(file: CredentialFile) -> None:
    assert not file.find("r:5000").known
    assert not file.erase("r:5000")


def test_stored_credentials_are_found_and_erased(file: CredentialFile) -> None:
    assert file.store("r:5000", Login("maria", "a:b c")) is True
    assert file.find("r:5000") == Login("maria", "a:b c")
    assert json.loads(Path(file.path).read_text()) == {
        "auths": {"r:5000": {"auth": base64.b64encode(b"maria:a:b c").decode()}}
    }
    assert not file.find("r:5001").known
    assert file.erase("r:5000")
    assert not file.find("r:5000").known


def test_the_file_is_for_its_owner_alone(file: CredentialFile) -> None:
    file.store("r", Login("u", "p"))
    assert stat.S_IMODE(os.stat(file.path).st_mode) == 0o600
    os.chmod(file.path, 0o644)
    file.store("s", Login("u", "p"))
    assert stat.S_IMODE(os.stat(file.path).st_mode) == 0o600
    assert os.listdir(os.path.dirname(file.path)) == ["config.json"]


def test_other_members_of_the_file_stay(file: CredentialFile) -> None:
    write(file, {"psFormat": "x", "auths": None, "HttpHeaders": {"a": "b"}})
    file.store("r", Login("u", "p"))
    document = json.loads(Path(file.path).read_text())
    assert (document["psFormat"], document["HttpHeaders"]) == ("x", {"a": "b"})


def test_a_symbolic_link_stays_one(file: CredentialFile, tmp_path: Path) -> None:
    real = tmp_path / "real.json"
    real.write_text("{}")
    Path(file.path).parent.mkdir()
    Path(file.path).symlink_to(real)
    file.store("r", Login("u", "p"))
    assert Path(file.path).is_symlink()
    assert "auths" in json.loads(real.read_text())


def test_older_files_have_urls(file: CredentialFile) -> None:
    pair = base64.b64encode(b"u:p").decode()
    write(file, {"auths": {"https://r.example.com/v1/": {"auth": pair}}})
    assert file.find("r.example.com") == Login("u", "p")
    assert not file.find("r.example.com.evil").known
    assert not file.find("example.com").known


def test_an_identity_token_is_stored_in_place_of_the_password(file: CredentialFile) -> None:
    file.store(HUB, Login("u", "p", "token"))
    assert "cDp" not in Path(file.path).read_text()
    assert file.find(HUB) == Login("u", "", "token")


@pytest.mark.parametrize(
    "text", ["{", "[]", '"x"', "\xff", "[" * 10_000, '{"auths":{"r":{"auth":"!!"}}}']
)
def test_a_damaged_file_is_reported(file: CredentialFile, text: str) -> None:
    Path(file.path).parent.mkdir()
    Path(file.path).write_text(text, encoding="latin-1")
    with pytest.raises(InvalidRequest):
        file.find("r")


@pytest.mark.parametrize("entry", [{"auths": {"r": 1}}, {"auths": []}, {"credHelpers": 3}])
def test_unknown_members_are_ignored(file: CredentialFile, entry: object) -> None:
    write(file, entry)
    assert not file.find("r").known


@pytest.mark.parametrize("document", [{"credsStore": "test"}, {"credHelpers": {"r:5000": "test"}}])
def test_a_helper_keeps_the_secret(
    file: CredentialFile, helper: Path, document: dict[str, object]
) -> None:
    write(file, document)
    assert file.store("r:5000", Login("maria", "s3cret")) is False
    text = Path(file.path).read_text()
    assert "s3cret" not in text
    assert base64.b64encode(b"maria:s3cret").decode() not in text
    verb, _, passed = helper.read_text().strip().partition(" ")
    assert verb == "store"
    assert json.loads(passed) == {
        "ServerURL": "r:5000",
        "Username": "maria",
        "Secret": "s3cret",
    }
    assert not file.find("r:5000").known
    answer = {"ServerURL": "r:5000", "Username": "maria", "Secret": "s3cret"}
    Path(f"{helper}.answer").write_text(json.dumps(answer))
    assert file.find("r:5000") == Login("maria", "s3cret")
    Path(f"{helper}.answer").write_text(json.dumps(answer | {"Username": "<token>"}))
    assert file.find("r:5000") == Login(identity_token="s3cret")
    assert file.erase("r:5000")
    assert helper.read_text().splitlines()[-1] == "erase r:5000"


@pytest.mark.parametrize("name", ["../../bin/sh", "a b", "", "x/y", "-x", "a" * 65, "é", 5])
def test_the_name_of_a_helper_is_restricted(file: CredentialFile, name: object) -> None:
    write(file, {"credsStore": name})
    if not name:
        assert not file.find("r").known
        return
    with pytest.raises(InvalidRequest, match="not a valid name of a credential helper"):
        file.find("r")


@pytest.mark.parametrize("answer", ["{}", "[]", "x", '{"Username":1,"Secret":"s"}'])
def test_the_output_of_a_helper_is_checked(file: CredentialFile, helper: Path, answer: str) -> None:
    write(file, {"credsStore": "test"})
    Path(f"{helper}.answer").write_text(answer)
    with pytest.raises(JaulaError, match="did not return credentials"):
        file.find("r")


def test_a_helper_that_is_missing_is_named(file: CredentialFile) -> None:
    write(file, {"credsStore": "nosuch-helper"})
    with pytest.raises(JaulaError, match="docker-credential-nosuch-helper is not in the path"):
        file.store("r", Login("u", "p"))


def test_the_path_of_the_file_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/m")
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    assert auth_file_path() == "/home/m/.docker/config.json"
    monkeypatch.setenv("DOCKER_CONFIG", "/d")
    assert auth_file_path() == "/d/config.json"
    monkeypatch.setenv("REGISTRY_AUTH_FILE", "/a/auth.json")
    assert auth_file_path() == "/a/auth.json"


# -- the kernel's keyring ----------------------------------------------------------------------


class Held:
    """A keyring in memory, which may be full."""

    def __init__(self) -> None:
        self.kept: dict[str, Login] = {}
        self.full = False

    def find(self, key: str) -> Login:
        return self.kept.get(key, Login())

    def store(self, key: str, login: Login) -> None:
        if self.full:
            raise Unavailable("quota")
        self.kept[key] = login

    def erase(self, key: str) -> bool:
        return self.kept.pop(key, None) is not None


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def kept(tmp_path: Path, held: Held) -> CredentialFile:
    return CredentialFile(str(tmp_path / "config.json"), lambda path: held)  # type: ignore[arg-type,return-value]


def test_the_keyring_stores_credentials_without_a_helper(kept: CredentialFile, held: Held) -> None:
    login = Login("maria", "s3cret")
    assert kept.store("r:5000", login) is False
    assert json.loads(Path(kept.path).read_text()) == {"auths": {"r:5000": {}}}
    assert kept.find("r:5000") == login
    assert kept.find("other:5000") == Login()
    assert kept.erase("r:5000") is True
    assert held.kept == {}
    assert kept.find("r:5000") == Login()


def test_clear_text_credentials_are_read_and_replaced(kept: CredentialFile, held: Held) -> None:
    assert kept.store("r:5000", Login("maria", "old"), clear=True) is True
    assert held.kept == {}
    assert kept.find("r:5000").password == "old"
    assert kept.store("r:5000", Login("maria", "new")) is False
    assert "old" not in Path(kept.path).read_text()
    assert kept.find("r:5000").password == "new"


def test_with_a_full_keyring_the_file_stores_the_password(kept: CredentialFile, held: Held) -> None:
    held.full = True
    assert kept.store("r:5000", Login("maria", "s3cret")) is True
    assert kept.find("r:5000").password == "s3cret"


def test_without_a_keyring_the_file_stores_the_password(tmp_path: Path) -> None:
    file = CredentialFile(str(tmp_path / "config.json"), lambda path: None)
    assert file.store("r:5000", Login("maria", "s3cret")) is True
    assert file.find("r:5000").password == "s3cret"


def test_a_helper_takes_precedence_over_the_keyring(
    kept: CredentialFile, held: Held, helper: Path
) -> None:
    write(kept, {"credsStore": "test"})
    assert kept.store("r:5000", Login("maria", "s3cret")) is False
    assert held.kept == {}
    assert "store" in helper.read_text()
    kept.erase("r:5000")


def test_the_kernel_keyring_stores_and_erases(tmp_path: Path) -> None:
    keyring = available(str(tmp_path))
    if keyring is None:
        pytest.skip("this kernel gives no keyring here")
    other = available(str(tmp_path / "other"))
    assert other is not None
    keyring.store("r:5000", Login("maria", "s3cret \u00e9"))
    try:
        assert keyring.find("r:5000") == Login("maria", "s3cret \u00e9")
        assert other.find("r:5000") == Login()
        keyring.store("r:5000", Login(identity_token="t"))
        assert keyring.find("r:5000").identity_token == "t"
        with pytest.raises(Unavailable, match="too large"):
            keyring.store("r:5000", Login("maria", "x" * 40_000))
    finally:
        assert keyring.erase("r:5000") is True
    assert keyring.erase("r:5000") is False
    assert keyring.find("r:5000") == Login()


def test_our_helper_is_registered_if_it_is_installed(
    kept: CredentialFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "docker-credential-jaula"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    write(kept, {"credHelpers": {"other": "test"}})
    kept.store("r:5000", Login("maria", "s3cret"))
    document = json.loads(Path(kept.path).read_text())
    assert document["credHelpers"] == {"other": "test", "r:5000": "jaula"}
    assert kept.find("r:5000").password == "s3cret"  # without the program
    kept.store("r:5000", Login("maria", "s3cret"), clear=True)
    assert json.loads(Path(kept.path).read_text())["credHelpers"] == {"other": "test"}
    kept.store("r:5000", Login("maria", "s3cret"))
    kept.erase("r:5000")
    assert json.loads(Path(kept.path).read_text()) == {
        "credHelpers": {"other": "test"},
        "auths": {},
    }
