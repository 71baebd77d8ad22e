"""TLS without input or output: what arrives goes in, what is to be sent comes out.

Follows RFC 8446 (TLS 1.3) and RFC 5246 (1.2) as OpenSSL does them. Engine and client carry the
bytes each in its own way.

Facts about ends: ``close_notify`` closes one direction only, as ``shutdown`` does on a socket (RFC
8446, section 6.1); Go's clients send it when their input ends and go on reading. The end of the
TCP stream is the end of both. OpenSSL lets either side go on with the other direction, but its
``SSL_shutdown`` reads too, and takes data that it finds for a fault, after it has told the end.

Facts about refusals: with TLS 1.3 a client has finished its handshake before the server has judged
its certificate, so a refusal arrives in place of the first answer.
"""

from __future__ import annotations

import os
import ssl
from typing import NamedTuple

from jaula.errors import InvalidRequest

CHUNK_SIZE = 1 << 16  # bytes that are taken in or out at once


class TlsFiles(NamedTuple):
    """Paths of PEM files: whom to trust, and who we are."""

    authority: str
    certificate: str
    key: str


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """For a server whose clients prove who they are. Raises ``InvalidRequest``.

    No session is resumed: it would bring along a certificate that nobody looked at again.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0
    context.verify_mode = ssl.CERT_REQUIRED
    _refuse_public(files.key)
    _load(context, files)
    return context


def client_context(
    authority: str = "", certificate: str = "", key: str = "", *, verify: bool = True
) -> ssl.SSLContext:
    """For a client; without an authority's file the system's are trusted.

    Raises ``InvalidRequest``.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif not authority:
        context.load_default_certs()
    if bool(certificate) != bool(key):
        raise InvalidRequest("a certificate and its key are wanted together")
    _load(context, TlsFiles(authority if verify else "", certificate, key))
    return context


def _load(context: ssl.SSLContext, files: TlsFiles) -> None:
    try:
        if files.authority:
            context.load_verify_locations(files.authority)
    except (OSError, ssl.SSLError) as error:
        raise _unusable("the authority's certificate", files.authority, error) from None
    try:
        if files.certificate:
            context.load_cert_chain(files.certificate, files.key, password=lambda: b"")
    except (OSError, ssl.SSLError) as error:
        missing = next((p for p in files[1:] if not os.path.exists(p)), "")
        both = missing or f"{files.certificate} with key {files.key}"
        raise _unusable("the certificate", both, error) from None


def _unusable(what: str, path: str, error: OSError) -> InvalidRequest:
    reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
    return InvalidRequest(f"{what} {path} cannot be used: {reason or error}")


def _refuse_public(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise InvalidRequest(f"the key {path} cannot be used: {error.strerror}") from None
    if mode & 0o007:
        raise InvalidRequest(f"the key {path} can be read by everybody", hint="chmod 0600")


class TlsError(Exception):
    """The connection cannot go on; the text is for people, ``plain`` marks a peer without TLS."""

    def __init__(self, reason: str, *, plain: bool = False) -> None:
        super().__init__(reason)
        self.plain = plain


class TlsCodec:
    """One connection. What fails raises :class:`TlsError`; :meth:`outgoing` is an alert then."""

    def __init__(self, context: ssl.SSLContext, *, server: bool, name: str | None = None) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._session = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server, server_hostname=name
        )
        self.ended = False  # the peer has told the end of what it sends

    def feed(self, data: bytes) -> None:
        """Bytes that came; none are the end of the stream."""
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def outgoing(self) -> bytes:
        """Bytes that are to be sent."""
        return self._outgoing.read()

    def do_handshake(self) -> bool:
        """Go on with the handshake; whether it is complete."""
        try:
            self._session.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise _failed(error) from None
        return True

    def read(self) -> bytes:
        """Up to a piece of what the peer said; empty where more must be fed, or after its end."""
        if self.ended:
            return b""
        try:
            data = self._session.read(CHUNK_SIZE)
        except ssl.SSLWantReadError:
            return b""
        except ssl.SSLZeroReturnError:
            data = b""
        except ssl.SSLError as error:
            raise _failed(error) from None
        self.ended = not data
        return data

    def write(self, data: bytes) -> None:
        """Say something."""
        try:
            self._session.write(data)
        except ssl.SSLError as error:
            raise _failed(error) from None

    def end(self) -> None:
        """Tell the end of what we say; the other direction goes on if all of it was read so far.

        It is told also where this fails.
        """
        try:
            self._session.unwrap()
        except ssl.SSLWantReadError:
            return  # the peer has not told its own end
        except ssl.SSLError as error:
            raise _failed(error) from None

    @property
    def certificate(self) -> bytes:
        """The peer's certificate in DER."""
        return self._session.getpeercert(binary_form=True) or b""

    @property
    def subject(self) -> tuple[tuple[tuple[str, str], ...], ...]:
        """The subject of the peer's certificate that was verified."""
        found = self._session.getpeercert() or {}
        return found.get("subject", ())  # type: ignore[return-value]


def _failed(error: ssl.SSLError) -> TlsError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return TlsError(f"certificate verify failed: {error.verify_message}")
    if isinstance(error, ssl.SSLEOFError):
        return TlsError("the connection was cut")
    reason = (error.reason or str(error)).replace("_", " ").lower()
    if "alert" in reason:
        return TlsError(f"refused by the other side: {reason.partition('alert ')[2] or reason}")
    return TlsError(reason, plain=error.reason == "HTTP_REQUEST")
