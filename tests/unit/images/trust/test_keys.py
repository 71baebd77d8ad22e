"""Keys and key files: ours, cosign's and skopeo's."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from jaula.errors import InvalidRequest
from jaula.features.trust import key_file, signing_keys

# Made by cosign 2.5 and skopeo 1.18 for this test, both under this password.
PASSWORD = b"pw"
COSIGN = b"""-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----
eyJrZGYiOnsibmFtZSI6InNjcnlwdCIsInBhcmFtcyI6eyJOIjo2NTUzNiwiciI6
OCwicCI6MX0sInNhbHQiOiJRMmlTOEtIamUwMmZSWlZtYnZRV3Z3WHdOLzhLMUJa
cE04byt6VzEySmtzPSJ9LCJjaXBoZXIiOnsibmFtZSI6Im5hY2wvc2VjcmV0Ym94
Iiwibm9uY2UiOiJBNHl0VWgwMVhrV2l6TkI2bGVidHhQNWNjZW04THRmayJ9LCJj
aXBoZXJ0ZXh0IjoiNXkyZnpYRmI5WDFJNk04VkI5YnltSjByeVVkemVacVY2aGxk
dEE5RFRoTlhtY2tLMkdMb29yRytIVmptYnAzZWJwNGNBNDlaOG15ZmpIWmNlR0Fu
Y2dxWEdkcEtpcVhGaVMrZEZ1eXQ4S2hFRFRrN3Fub3RlS3gya2xOcU9XSWdmSWpq
MzcwMnhva1VnTkgwR1FuT21yREFpZ25GYlVZMjExMUNhdW9laUdlajVqYnVxOW5m
YVNaTXZMSXA1a3ljZkpMekRFaGxJQUVsT1E9PSJ9
-----END ENCRYPTED SIGSTORE PRIVATE KEY-----
"""
COSIGN_PUBLIC = b"""-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEwnt57IDgpV45B5AFWvkrLOPgpWVK
T4meSZ34J1NEllR+LVfzsrveQan9x4y83Rp721OYcCofgal0ICgvVqhPEQ==
-----END PUBLIC KEY-----
"""
SKOPEO = b"""-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----
eyJrZGYiOnsibmFtZSI6InNjcnlwdCIsInBhcmFtcyI6eyJOIjo2NTUzNiwiciI6
OCwicCI6MX0sInNhbHQiOiJJRllGUW40K2t4cEY5T1o0NDhBM3FYM2hFZGVoVTh5
d0lOcW9hOHU3MEIwPSJ9LCJjaXBoZXIiOnsibmFtZSI6Im5hY2wvc2VjcmV0Ym94
Iiwibm9uY2UiOiJzMFJDQ2FlSnNkQXhTdWhmL2xwQmw3ZlRwTEFsOU9JOCJ9LCJj
aXBoZXJ0ZXh0IjoiMHRleGpzYkNiMTA4THFZOE13clBaQ25WZk9hSC9yTGtZYThR
N2tsYVplOFNFKzBhU1RZQzB6aHFVTG1DS1Z1YXZpVkRjRGxjRjZ6MTdHSDdMU2Iy
TTZ6b3BHT24wWElUTW8wMUwrYlVYVjcxTWRYVWNkaVo4TWJ4UGFTNFVaZ0JCYjZl
ZEVtYXE0ejNkdUNsc2JoVDYwdk9venJTMGFHN1g0ZFBOV0syQVNuK1hiU3hNRzZC
ZlZGTS9GbndWK042a2srdTZkcXIzY0pHV0E9PSJ9
-----END ENCRYPTED COSIGN PRIVATE KEY-----
"""


def test_cosigns_private_key_is_read() -> None:
    assert key_file.read(COSIGN, PASSWORD, "cosign.key").public.pem == COSIGN_PUBLIC


def test_skopeos_private_key_is_read() -> None:
    key = key_file.read(SKOPEO, PASSWORD, "sk.private")
    assert key.public.algorithm == "ecdsa"


def test_a_wrong_password_is_refused_without_revealing_the_key() -> None:
    with pytest.raises(InvalidRequest, match=r"^k: the password is wrong, or the file is damaged$"):
        key_file.read(COSIGN, b"PW", "k")


@pytest.mark.parametrize("algorithm", signing_keys.ALGORITHMS)
def test_a_public_key_verifies_the_signatures_of_its_private_key(algorithm: str) -> None:
    key = signing_keys.generate(algorithm)
    again = key_file.read(key_file.write(key, b"word"), b"word", "k")
    public = signing_keys.public_key(again.public.pem, "k.pub")
    assert public.algorithm == algorithm
    assert public.fingerprint == key.public.fingerprint
    signature = again.sign(b"data")
    assert public.verifies(signature, b"data")
    assert not public.verifies(signature, b"Data")
    assert not public.verifies(signature[:-1], b"data")
    assert not public.verifies(b"", b"data")
    assert not signing_keys.generate(algorithm).public.verifies(signature, b"data")


def test_files_of_openssl_are_read() -> None:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    key = signing_keys.generate()
    inner = load_der_private_key(key.der, None)
    plain = inner.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    sealed = inner.private_bytes(
        form.Encoding.PEM, form.PrivateFormat.PKCS8, form.BestAvailableEncryption(b"w")
    )
    assert key_file.read(plain, b"", "k").public.pem == key.public.pem
    assert key_file.read(sealed, b"w", "k").public.pem == key.public.pem
    with pytest.raises(InvalidRequest, match="the password is wrong"):
        key_file.read(sealed, b"x", "k")


@pytest.mark.parametrize(
    "document",
    [
        b"not json",
        b"[]",
        b"{}",
        json.dumps({"kdf": {"name": "argon2"}}).encode(),
        b"[" * 5000,
    ],
)
def test_a_file_that_is_not_a_key_is_refused(document: bytes) -> None:
    inner = base64.b64encode(document)
    pem = b"-----BEGIN %b-----\n%b\n-----END %b-----\n" % (
        key_file.LABEL.encode(),
        inner,
        key_file.LABEL.encode(),
    )
    with pytest.raises(InvalidRequest, match=r"^k is damaged"):
        key_file.read(pem, b"", "k")


@pytest.mark.parametrize(
    "params",
    [
        {"N": 1 << 22, "r": 8, "p": 1},  # four gigabytes
        {"N": 65537, "r": 8, "p": 1},
        {"N": 0, "r": 8, "p": 1},
        {"N": 65536, "r": 8, "p": 10**6},
        {"N": 65536, "r": -8, "p": 1},
    ],
)
def test_a_file_cannot_make_us_compute_for_ever(params: dict[str, int]) -> None:
    pem = COSIGN.decode()
    inner = "".join(pem.split("-----")[2].split())
    document = json.loads(base64.b64decode(inner))
    document["kdf"]["params"] = params
    text = base64.b64encode(json.dumps(document).encode()).decode()
    with pytest.raises(InvalidRequest, match="scrypt parameters"):
        key_file.read(pem.replace(pem.split("-----")[2], f"\n{text}\n").encode(), PASSWORD, "k")


@pytest.mark.parametrize(
    ("pem", "what"),
    [
        (b"", "is not a public key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "is not a public key"),
        (COSIGN, "holds a private key"),
    ],
)
def test_a_file_that_is_not_a_public_key_is_refused(pem: bytes, what: str) -> None:
    with pytest.raises(InvalidRequest, match=what):
        signing_keys.public_key(pem, "k.pub")


def test_keys_of_other_types_are_refused() -> None:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    for other in (
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
    ):
        public = other.public_key().public_bytes(
            form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo
        )
        private = other.private_bytes(
            form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()
        )
        with pytest.raises(InvalidRequest, match="neither an ECDSA key on P-256 nor an Ed25519"):
            signing_keys.public_key(public, "k.pub")
        with pytest.raises(InvalidRequest, match="neither an ECDSA key on P-256 nor an Ed25519"):
            key_file.read(private, b"", "k")
    with pytest.raises(InvalidRequest, match="unknown algorithm"):
        signing_keys.generate("rsa")


def test_a_private_key_is_never_printed() -> None:
    key = signing_keys.generate()
    assert repr(key) == "PrivateKey(...)"


def test_a_policy_without_keys_imports_no_cryptography(tmp_path: Path) -> None:
    import subprocess
    import sys

    policy = tmp_path / "policy.toml"
    policy.write_text('[images]\n"*" = "reject"\n')
    code = (
        "import sys; from jaula.features.trust.signature_policy import RulesFile; "
        f"assert RulesFile({str(policy)!r}).read().in_force; "
        "assert 'cryptography' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": "src"})
