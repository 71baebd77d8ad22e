"""TLS without input or output: the caller feeds received bytes and sends the bytes that result.

Follows RFC 8446 (TLS 1.3) and RFC 5246 (TLS 1.2) as OpenSSL implements them. Engine and client
transport the bytes differently.

Facts about the end of a connection: ``close_notify`` closes one direction only, as ``shutdown``
does on a socket (RFC 8446, section 6.1). Go's clients send it at the end of their input and keep
reading. The end of the TCP stream ends both directions. OpenSSL allows the other direction to
continue. But ``SSL_shutdown`` also reads, and reports data that it reads as an error after it has
sent its ``close_notify``.

Facts about refused certificates: in TLS 1.3 a client completes its handshake before the server has
verified the client's certificate. So a refusal arrives instead of the first answer.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from typing import NamedTuple

from jaula.errors import InvalidRequest

CHUNK_SIZE = 1 << 16  # bytes of one read or write


class TlsFiles(NamedTuple):
    """Paths of PEM files: the trusted CA, our certificate and our key. An empty CA: none."""

    authority: str
    certificate: str
    key: str


def server_context(files: TlsFiles, protocols: Sequence[str] = ()) -> ssl.SSLContext:
    """Return the context of a server that requires client certificates, if there is a CA for them.

    ``protocols`` are names for ALPN (RFC 7301). A client that offers none of them is served too.

    Sessions are never resumed, since a resumed session would skip the verification of the
    certificate.

    :raises InvalidRequest: when a file is missing, invalid or readable by all users.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0
    if files.authority:
        context.verify_mode = ssl.CERT_REQUIRED
    if protocols:
        context.set_alpn_protocols(protocols)
    _refuse_world_readable(files.key)
    _load(context, files)
    return context


def client_context(
    authority: str = "", certificate: str = "", key: str = "", *, verify: bool = True
) -> ssl.SSLContext:
    """Return the context of a client. Without ``authority`` the system's CAs are trusted.

    :raises InvalidRequest: when a file is missing or invalid.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif not authority:
        context.load_default_certs()
    if bool(certificate) != bool(key):
        raise InvalidRequest("a certificate and its key are required together")
    _load(context, TlsFiles(authority if verify else "", certificate, key))
    return context


def _load(context: ssl.SSLContext, files: TlsFiles) -> None:
    try:
        if files.authority:
            context.load_verify_locations(files.authority)
    except (OSError, ssl.SSLError) as error:
        raise _unusable_error("the CA certificate", files.authority, error) from None
    try:
        if files.certificate:
            context.load_cert_chain(files.certificate, files.key, password=lambda: b"")
    except (OSError, ssl.SSLError) as error:
        missing = next((p for p in files[1:] if not os.path.exists(p)), "")
        paths = missing or f"{files.certificate} with key {files.key}"
        raise _unusable_error("the certificate", paths, error) from None


def _unusable_error(description: str, path: str, error: OSError) -> InvalidRequest:
    reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
    return InvalidRequest(f"{description} {path} cannot be used: {reason or error}")


def _refuse_world_readable(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise InvalidRequest(f"the key {path} cannot be used: {error.strerror}") from None
    if mode & 0o007:
        raise InvalidRequest(f"the key {path} is readable by all users", hint="chmod 0600")


class TlsError(Exception):
    """The connection failed. ``plain`` says that the peer does not use TLS."""

    def __init__(self, reason: str, *, plain: bool = False) -> None:
        super().__init__(reason)
        self.plain = plain


class TlsCodec:
    """One TLS connection, without a socket.

    A method that fails raises :class:`TlsError`; :meth:`outgoing` then returns the alert.
    """

    def __init__(self, context: ssl.SSLContext, *, server: bool, name: str | None = None) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._session = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server, server_hostname=name
        )
        self._failure: ssl.SSLError | None = None  # of a read, after the data before it
        self.ended = False  # the peer has closed its direction

    def feed(self, data: bytes | memoryview) -> None:
        """Feed received bytes; empty bytes mean the end of the stream."""
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def outgoing(self) -> bytes:
        """Return the bytes to send."""
        return self._outgoing.read()

    def do_handshake(self) -> bool:
        """Continue the handshake. Return whether it is complete."""
        try:
            self._session.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise _tls_error(error) from None
        return True

    def read(self) -> bytes:
        """Return at most ``CHUNK_SIZE`` bytes of data; b'' if more must be fed, or at the end."""
        records = []
        size = 0
        while size < CHUNK_SIZE and not self.ended and self._failure is None:
            try:
                data = self._session.read(CHUNK_SIZE - size)  # of one record, 16 KiB at most
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                data = b""
            except ssl.SSLError as error:
                self._failure = error
                break
            self.ended = not data
            records.append(data)
            size += len(data)
        if self._failure is not None and not records:
            raise _tls_error(self._failure) from None
        return b"".join(records)

    def read_into(self, buffer: memoryview) -> int:
        """Read as much data as has been fed into a buffer; return the bytes.

        It is 0 if more must be fed, or at the end.
        """
        size = 0
        while size < len(buffer) and not self.ended:
            try:
                count: int = self._session.read(len(buffer) - size, buffer[size:])  # type: ignore[assignment]
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                count = 0
            except ssl.SSLError as error:
                raise _tls_error(error) from None
            self.ended = not count
            size += count
        return size

    def write(self, data: bytes | memoryview) -> None:
        """Encrypt data."""
        try:
            self._session.write(data)
        except ssl.SSLError as error:
            raise _tls_error(error) from None

    def end(self) -> None:
        """Send ``close_notify``. The other direction continues if all of its data was read so far.

        The ``close_notify`` is sent even if this fails.
        """
        try:
            self._session.unwrap()
        except ssl.SSLWantReadError:
            return  # the peer has not closed its direction
        except ssl.SSLError as error:
            raise _tls_error(error) from None

    @property
    def protocol(self) -> str:
        """The protocol that the handshake has selected by ALPN; '' for none."""
        return self._session.selected_alpn_protocol() or ""

    @property
    def certificate(self) -> bytes:
        """The peer's certificate in DER."""
        return self._session.getpeercert(binary_form=True) or b""

    @property
    def subject(self) -> tuple[tuple[tuple[str, str], ...], ...]:
        """The subject of the peer's verified certificate."""
        certificate = self._session.getpeercert() or {}
        return certificate.get("subject", ())  # type: ignore[return-value]


def _tls_error(error: ssl.SSLError) -> TlsError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return TlsError(f"certificate verify failed: {error.verify_message}")
    if isinstance(error, ssl.SSLEOFError):
        return TlsError("the connection was closed without close_notify")
    reason = (error.reason or str(error)).replace("_", " ").lower()
    if "alert" in reason:
        return TlsError(f"refused by the peer: {reason.partition('alert ')[2] or reason}")
    return TlsError(reason, plain=error.reason == "HTTP_REQUEST")
