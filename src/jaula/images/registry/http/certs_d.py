"""Certificates for a registry's server, and the TLS settings from them.

Sources: docker docs, "Verify repository client with certificates"; containerd ``docs/hosts.md``,
"ca field", "client field". Certificates of authorities are trusted in addition to the system's.
"""

from __future__ import annotations

import os
import ssl

import msgspec

from jaula.errors import InvalidRequest


class Certificates(msgspec.Struct, frozen=True):
    """Paths of PEM files.

    ``clients`` are pairs of a client certificate and its key. Without a path of the key it is in
    the file of the certificate.
    """

    authorities: tuple[str, ...] = ()
    clients: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.authorities or self.clients)


def in_directories(directories: tuple[str, ...]) -> Certificates:
    """Return the certificates in directories of Docker's layout.

    Every ``*.crt`` is the certificate of an authority. ``NAME.cert`` with ``NAME.key`` is a client
    certificate.
    """
    paths = [
        os.path.join(directory, name)
        for directory in directories
        for name in sorted(os.listdir(directory))
    ]
    return Certificates(
        tuple(path for path in paths if path.endswith(".crt")),
        tuple(
            (path, path.removesuffix(".cert") + ".key") for path in paths if path.endswith(".cert")
        ),
    )


def tls_context(
    certificates: Certificates = Certificates(),  # noqa: B008 - frozen
    *,
    verify: bool = True,
) -> ssl.SSLContext:
    """Return the TLS context for one host; the minimum is TLS 1.2.

    :raises InvalidRequest: if a certificate cannot be used.
    """
    tls = ssl.create_default_context()
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    # Private CAs often lack extensions that only strict checks of RFC 5280 require.
    tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
    for path in certificates.authorities:
        try:
            tls.load_verify_locations(cafile=path)
        except (OSError, ssl.SSLError) as error:
            raise _unusable(path, error) from None
    for path, key in certificates.clients:
        if key and not os.path.exists(key):
            raise InvalidRequest(
                f"missing key {os.path.basename(key)} for client certificate"
                f" {os.path.basename(path)}"
            )
        try:
            tls.load_cert_chain(path, key or None, password=_no_password)
        except (OSError, ssl.SSLError) as error:
            raise _unusable(path, error) from None
    if not verify:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    return tls


def _no_password() -> bytes:
    """Return the password of a key. Without this OpenSSL asks on the terminal."""
    return b""


def _unusable(path: str, error: OSError) -> InvalidRequest:
    return InvalidRequest(f"the certificate {path} cannot be used: {error}")
