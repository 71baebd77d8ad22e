"""TLS settings from a registry's ``certs.d`` directory.

Source: docker docs, "Verify repository client with certificates": every ``*.crt`` is a CA
certificate in addition to the system's. ``NAME.cert`` with ``NAME.key`` is a client certificate.
"""

from __future__ import annotations

import os
import ssl

from jaula.errors import InvalidRequest


def tls_context(directories: tuple[str, ...] = (), *, verify: bool = True) -> ssl.SSLContext:
    """Return the TLS context for one host; the minimum is TLS 1.2.

    :raises InvalidRequest: if a certificate cannot be used.
    """
    tls = ssl.create_default_context()
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    # Private CAs often lack extensions that only strict checks of RFC 5280 require.
    tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
    for directory in directories:
        for name in sorted(os.listdir(directory)):
            path = os.path.join(directory, name)
            try:
                if name.endswith(".crt"):
                    tls.load_verify_locations(cafile=path)
                elif name.endswith(".cert"):
                    tls.load_cert_chain(path, _key_of(path))
            except (OSError, ssl.SSLError) as error:
                raise InvalidRequest(f"the certificate {path} cannot be used: {error}") from None
    if not verify:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    return tls


def _key_of(path: str) -> str:
    key = path.removesuffix(".cert") + ".key"
    if not os.path.exists(key):
        raise InvalidRequest(
            f"missing key {os.path.basename(key)} for client certificate {os.path.basename(path)}"
        )
    return key
