"""TLS as a registry's ``certs.d`` directory asks for it.

Source: docker docs, "Verify repository client with certificates": every ``*.crt`` is an authority
beside the system's; ``NAME.cert`` with ``NAME.key`` is a certificate of ours.
"""

from __future__ import annotations

import os
import ssl

from jaula.errors import InvalidRequest


def context(directories: tuple[str, ...] = (), *, verify: bool = True) -> ssl.SSLContext:
    """A context for one host: TLS 1.2 at least. Raises :class:`InvalidRequest`."""
    made = ssl.create_default_context()
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    # Authorities of one's own often lack extensions that only the strict reading of RFC 5280 wants.
    made.verify_flags &= ~ssl.VERIFY_X509_STRICT
    for directory in directories:
        for name in sorted(os.listdir(directory)):
            path = os.path.join(directory, name)
            try:
                if name.endswith(".crt"):
                    made.load_verify_locations(cafile=path)
                elif name.endswith(".cert"):
                    made.load_cert_chain(path, _key_of(path))
            except (OSError, ssl.SSLError) as error:
                raise InvalidRequest(f"the certificate {path} cannot be used: {error}") from None
    if not verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


def _key_of(path: str) -> str:
    key = path.removesuffix(".cert") + ".key"
    if not os.path.exists(key):
        raise InvalidRequest(
            f"missing key {os.path.basename(key)} for client certificate {os.path.basename(path)}"
        )
    return key
