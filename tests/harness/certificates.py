"""A private certificate authority, with certificates for an engine and its clients."""

from __future__ import annotations

import ssl
import subprocess
from hashlib import sha256
from pathlib import Path

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority:
    """A CA: ``ca.pem`` in a directory, and the certificates that it signed."""

    def __init__(self, directory: Path, name: str = "test authority") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.file = directory / "ca.pem"
        self._openssl(
            *("req", "-x509", *_CURVE, "-keyout", "ca-key.pem", "-out", "ca.pem"),
            *("-days", "2", "-subj", f"/CN={name}"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )

    def _openssl(self, *words: str) -> None:
        subprocess.run(
            ["openssl", *words], cwd=self.directory, check=True, capture_output=True, timeout=60
        )

    def sign(
        self,
        name: str,
        *,
        usage: str = "clientAuth",
        expired: bool = False,
        addresses: tuple[str, ...] = (),
    ) -> Path:
        """Return a directory with ``ca.pem``, ``cert.pem`` and ``key.pem`` (DOCKER_CERT_PATH)."""
        place = self.directory / f"of-{name.replace('/', '_') or 'nobody'}{'-old' * expired}"
        place.mkdir()
        alternatives = ("IP:127.0.0.1", "DNS:localhost", *(f"IP:{each}" for each in addresses))
        key, certificate = str(place / "key.pem"), str(place / "cert.pem")
        days = ("-not_before", "20200101000000Z", "-not_after", "20200102000000Z")
        self._openssl(
            *("req", "-x509", *_CURVE, "-keyout", key, "-out", certificate),
            *(days if expired else ("-days", "2")),
            *("-subj", f"/CN={name}" if name else "/O=nameless"),
            *("-CA", "ca.pem", "-CAkey", "ca-key.pem"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
            *("-addext", f"extendedKeyUsage={usage}"),
            *("-addext", f"subjectAltName={','.join(alternatives)}"),
        )
        (place / "ca.pem").write_bytes(self.file.read_bytes())
        return place

    def server(self) -> Path:
        """Return the engine's certificate, for 127.0.0.1."""
        return self.sign("127.0.0.1", usage="serverAuth")


def fingerprint(place: Path) -> str:
    """Return the policy's name of the certificate in a directory."""
    der = ssl.PEM_cert_to_DER_cert((place / "cert.pem").read_text())
    return f"sha256:{sha256(der).hexdigest()}"
