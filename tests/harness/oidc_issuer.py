"""A provider of OpenID Connect: real keys and signatures, answered without a network or by HTTP."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ISSUER = "https://login.example"
NOW = 1_800_000_000.0
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int) -> str:
    return b64(value.to_bytes((value.bit_length() + 7) // 8 or 1))


def jwks() -> list[dict[str, Any]]:
    public, point = RSA.public_key().public_numbers(), EC.public_key().public_numbers()
    return [
        {"kty": "RSA", "kid": "rsa", "n": number(public.n), "e": number(public.e)},
        {
            "kty": "EC",
            "kid": "ec",
            "crv": "P-256",
            "x": b64(point.x.to_bytes(32)),
            "y": b64(point.y.to_bytes(32)),
        },
        {
            "kty": "OKP",
            "kid": "ed",
            "crv": "Ed25519",
            "x": b64(ED.public_key().public_bytes_raw()),
        },
    ]


def sign(algorithm: str, data: bytes) -> bytes:
    if algorithm == "RS256":
        return RSA.sign(data, padding.PKCS1v15(), hashes.SHA256())
    if algorithm == "PS256":
        return RSA.sign(data, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    if algorithm == "ES256":
        r, s = decode_dss_signature(EC.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32) + s.to_bytes(32)
    assert algorithm == "EdDSA"
    return ED.sign(data)


KIDS = {"RS256": "rsa", "PS256": "rsa", "ES256": "ec", "EdDSA": "ed"}


def token(claims: dict[str, Any], algorithm: str = "RS256", **header: Any) -> str:
    head = {"alg": algorithm, "kid": KIDS.get(algorithm, "rsa")} | header
    signed = ".".join(b64(json.dumps(part).encode()) for part in (head, claims))
    return f"{signed}.{b64(sign(algorithm, signed.encode()))}"


def metadata(url: str) -> dict[str, str]:
    """Return the discovery document of an issuer."""
    return {
        "issuer": url,
        "authorization_endpoint": f"{url}/auth?tenant=1",
        "token_endpoint": f"{url}/token",
        "jwks_uri": f"{url}/keys",
    }


class Issuer:
    """A provider. ``claims`` and ``header`` change what its token says."""

    def __init__(self) -> None:
        self.claims: dict[str, Any] = {}
        self.algorithm = "RS256"
        self.header: dict[str, Any] = {}
        self.token = ""
        self.keys = jwks()
        self.nonce = self.challenge = ""
        self.requests: list[tuple[str, str]] = []
        self.name = ISSUER
        self.now = NOW
        self.metadata = metadata(ISSUER)

    def fetch(self, method: str, url: str, body: bytes | None, headers: dict[str, str]) -> bytes:
        self.requests.append((method, url))
        if url.endswith("openid-configuration"):
            return json.dumps(self.metadata).encode()
        if url.endswith("/keys"):
            return json.dumps({"keys": self.keys}).encode()
        form = parse_qs((body or b"").decode())
        verifier = form["code_verifier"][0]
        assert b64(hashlib.sha256(verifier.encode()).digest()) == self.challenge
        assert form["code"] == ["the-code"]
        claims = {
            "iss": self.name,
            "aud": "jaula",
            "sub": "1",
            "nonce": self.nonce,
            "iat": self.now,
            "exp": self.now + 300,
            "email": "alice@example.com",
        } | self.claims
        made = self.token or token(claims, self.algorithm, **self.header)
        return json.dumps({"id_token": made, "access_token": "x"}).encode()


@contextlib.contextmanager
def serving(issuer: Issuer) -> Iterator[str]:
    """Answer over HTTP on the loopback interface; yield the issuer's URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply(None)

        def do_POST(self) -> None:
            self._reply(self.rfile.read(int(self.headers["Content-Length"])))

        def _reply(self, body: bytes | None) -> None:
            answer = issuer.fetch(self.command, self.path, body, dict(self.headers))
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    issuer.name = url
    issuer.metadata = metadata(url)
    try:
        yield url
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
