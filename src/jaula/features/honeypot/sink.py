"""The sink: a process that answers every connection of a honeypot and relays published ports.

It runs as an unprivileged user in namespaces of its own, without files, capabilities or other
programs. Its descriptors are the sockets, the list of connections, which it can only append to, and
a control socket to the supervisor. Its end closes the container's only link.

Everything is bounded: connections at a time, bytes and seconds of each, lines of the list.
"""

from __future__ import annotations

import _socket
import asyncio
import base64
import binascii
import contextlib
import datetime
import errno
import ipaddress
import os
import re
import resource
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

import msgspec

from jaula.features.honeypot import answers, sink_network
from jaula.features.honeypot.run_directory import (
    ADDRESS,
    ADDRESS6,
    GATEWAY,
    GATEWAY6,
    SINK,
    Connections,
)
from jaula.kernel import mounts, process_calls, seccomp
from jaula.sandbox import sandbox_confinement
from jaula.spec.asciicast import CastWriter

UID = 65534  # nobody
MAX_CONNECTIONS = 256  # outgoing, at a time
MAX_INCOMING = 64  # at a time
MAX_SESSIONS = 1000  # incoming connections with a recording
KEPT = 16 << 10  # bytes of one direction of a connection that are listed
KEPT_DATAGRAM = 1024  # bytes
MAX_RECEIVED = 8 << 20  # bytes of an outgoing connection; it is closed then
IDLE, LIFETIME = 20.0, 120.0  # seconds of an outgoing connection
INCOMING_IDLE, INCOMING_LIFETIME = 900.0, 4 * 3600.0  # seconds
MAX_INCOMING_BYTES = 1 << 30  # of one incoming connection, in each direction
LIST_SIZE = 64 << 20  # bytes
DATAGRAM_RATE = 500  # listed datagrams in a second
CHUNK = 1 << 16  # bytes
_CONNECT = 5.0  # seconds
_CONTROL = 2.0  # seconds for the supervisor to open a file
_MAX_CONTEXTS = 64  # certificates at a time

_encode = msgspec.json.Encoder().encode
_TELNET = re.compile(rb"\xff(?:[\xfb-\xfe].|\xfa.*?\xff\xf0|[\xf0-\xf9])", re.DOTALL)
_ANCILLARY = 256  # bytes
_CERTIFICATE = "/certificate.pem"  # in the root of the sink, a small tmpfs


class Journal:
    """The list of connections, with a limit. ``unrecorded`` counts lines beyond it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._size = 0
        self.unrecorded = 0

    def write(self, **fields: Any) -> None:
        """Append a line."""
        line = _encode(fields) + b"\n"
        if self._size + len(line) > LIST_SIZE:
            self.unrecorded += 1
            return
        try:
            os.write(self._fd, line)
        except OSError:  # the disk is full
            self.unrecorded += 1
        else:
            self._size += len(line)


def _kept(data: bytes) -> dict[str, str]:
    """Return bytes as text for readers, and as base64 if the text does not have all of them."""
    text = data.decode("utf-8", "backslashreplace")
    if "\\" not in text and all(c.isprintable() or c in "\r\n\t" for c in text):
        return {"text": text}
    return {"text": text, "base64": base64.b64encode(data).decode()}


class Stream:
    """One TCP connection, with limits and the first bytes of both directions.

    ``peer`` names the other side, ``limit`` is the number of bytes that are received from it.
    """

    def __init__(
        self,
        sock: socket.socket,
        idle: float,
        deadline: float,
        peer: str = "the container",
        limit: int = MAX_RECEIVED,
    ) -> None:
        self.sock = sock
        self._peer = peer
        self._limit = limit
        self._idle = idle
        self._deadline = deadline
        self.received, self.sent = 0, 0
        self.first, self.first_sent = b"", b""
        self.end = ""

    def _timeout(self) -> float:
        return max(0.0, min(self._idle, self._deadline - time.monotonic()))

    async def read(self) -> bytes:
        """Return the next bytes, b"" at the end; ``end`` says why it ended."""
        if self.received >= self._limit:
            self.end = "byte limit"
            return b""
        loop = asyncio.get_running_loop()
        try:
            data = await asyncio.wait_for(loop.sock_recv(self.sock, CHUNK), self._timeout())
        except TimeoutError:
            self.end = "time limit"
            return b""
        except OSError as error:
            self.end = errno.errorcode.get(error.errno or 0, "error").lower()
            return b""
        if not data:
            self.end = f"closed by {self._peer}"
        self.received += len(data)
        if len(self.first) < KEPT:
            self.first += data[: KEPT - len(self.first)]
        return data

    async def write(self, data: bytes) -> bool:
        """Send bytes; return False if the connection has ended."""
        loop = asyncio.get_running_loop()
        try:
            await asyncio.wait_for(loop.sock_sendall(self.sock, data), self._timeout())
        except TimeoutError:
            self.end = "time limit"
            return False
        except OSError as error:
            self.end = errno.errorcode.get(error.errno or 0, "error").lower()
            return False
        self.sent += len(data)
        if len(self.first_sent) < KEPT:
            self.first_sent += data[: KEPT - len(self.first_sent)]
        return True


class Sink:
    """The state of the process. ``control`` is a SOCK_SEQPACKET socket to the supervisor."""

    def __init__(self, control: socket.socket, list_fd: int) -> None:
        self._control = control
        self._journal = Journal(list_fd)
        self._names = answers.Names()
        self._certificates: dict[str, ssl.SSLContext] = {}
        self._server_name = ""  # of the handshake that is in progress
        self._active = 0
        self._incoming = 0
        self._sessions = 0
        self._counts = {"outgoing": 0, "datagrams": 0, "incoming": 0, "refused": 0}
        self._second, self._listed = 0, 0
        self._tasks: set[asyncio.Task[None]] = set()

    def counts(self) -> Connections:
        """Return the numbers so far."""
        return Connections(**self._counts, unrecorded=self._journal.unrecorded)

    # -- outgoing TCP ------------------------------------------------------------------------

    async def accept(
        self, listener: socket.socket, handle: Callable[..., Any], limit: int, kind: str
    ) -> None:
        """Accept connections for ever; connections beyond the limit are closed."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, peer = await loop.sock_accept(listener)
            except OSError:  # the client has gone, or too many files are open
                await asyncio.sleep(0.01)
                continue
            active = self._active if kind == "outgoing" else self._incoming
            if active >= limit:
                self._counts["refused"] += 1
                sock.close()
                continue
            self._counts[kind] += 1
            if kind == "outgoing":
                self._active += 1
            else:
                self._incoming += 1
            task = asyncio.ensure_future(self._guard(sock, handle(sock, peer), kind))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _guard(self, sock: socket.socket, work: Any, kind: str) -> None:
        try:
            await work
        except (OSError, ValueError, ssl.SSLError) as error:
            self._journal.write(time=time.time(), direction="error", error=str(error)[:200])
        finally:
            sock.close()
            if kind == "outgoing":
                self._active -= 1
            else:
                self._incoming -= 1

    async def outgoing(self, sock: socket.socket, peer: tuple[Any, ...]) -> None:
        """Answer one connection of the container, and list it."""
        began, destination = time.time(), sock.getsockname()
        stream = Stream(sock, IDLE, time.monotonic() + LIFETIME)
        details: dict[str, Any] = {}
        try:
            await self._converse(stream, destination, details)
        finally:
            self._journal.write(
                time=began,
                direction="out",
                protocol="tcp",
                source=_text(peer),
                destination=_text(destination),
                name=self._names.name(destination[0]),
                **details,
                received=stream.received,
                sent=stream.sent,
                seconds=round(time.time() - began, 3),
                end=stream.end or "answered",
                data=_kept(stream.first),
            )

    async def _converse(
        self, stream: Stream, destination: tuple[Any, ...], details: dict[str, Any]
    ) -> None:
        port = destination[1]
        if greeting := answers.GREETINGS.get(port):
            details["service"] = "smtp" if port in answers.SMTP_PORTS else "banner"
            if not await stream.write(greeting):
                return
        data = await stream.read()
        if port in answers.SMTP_PORTS:
            smtp = answers.Smtp()
            while data and not smtp.ended:
                if not await stream.write(smtp.feed(data)) or smtp.ended:
                    return
                data = await stream.read()
        elif port == 53:
            details["service"] = "dns"
            await self._dns_stream(stream, data, details)
        elif answers.is_tls(data):
            details["service"] = "tls"
            await self._tls(stream, data, destination[0], details)
        elif answers.is_http(data):
            details["service"] = "http"
            while answers.http_missing(data) and (more := await stream.read()):
                data += more
            await stream.write(answers.http_answer(data))
        else:
            while data:
                data = await stream.read()

    async def _dns_stream(self, stream: Stream, data: bytes, details: dict[str, Any]) -> None:
        while data:
            size = int.from_bytes(data[:2], "big")
            if len(data) < 2 or len(data) < 2 + size:
                more = await stream.read()
                if not more:
                    return
                data += more
                continue
            name, answer = answers.dns_answer(data[2 : 2 + size], self._names, limit=65535)
            details["query"] = name
            data = data[2 + size :]
            if not answer or not await stream.write(len(answer).to_bytes(2, "big") + answer):
                return
            if not data:
                data = await stream.read()

    async def _tls(
        self, stream: Stream, hello: bytes, address: str, details: dict[str, Any]
    ) -> None:
        """Answer a TLS handshake with a certificate for the name that the client asks for."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self._context(address).wrap_bio(incoming, outgoing, server_side=True)
        incoming.write(hello)
        plain = b""
        shaken = False
        while True:
            data: bytes | None = None
            failed = False
            try:
                if not shaken:
                    self._server_name = ""
                    tls.do_handshake()
                    shaken = True
                    details["tls"] = tls.version() or ""
                data = tls.read(CHUNK)
            except ssl.SSLWantReadError:
                pass  # the handshake or the record is not complete
            except ssl.SSLError as error:
                details["tls"] = (error.reason or "failed").lower()
                failed = True
            if self._server_name:
                details["server_name"], self._server_name = self._server_name, ""
            if outgoing.pending and not await stream.write(outgoing.read()):
                break
            if failed or data == b"":
                break
            if data:
                plain += data[: max(0, KEPT * 4 - len(plain))]
                if answers.is_http(plain) and not answers.http_missing(plain):
                    tls.write(answers.http_answer(plain))
                    with contextlib.suppress(ssl.SSLError):
                        tls.unwrap()
                    await stream.write(outgoing.read())
                    break
                continue
            more = await stream.read()
            if not more:
                break
            incoming.write(more)
        if plain:
            details["decrypted"] = _kept(plain[:KEPT])

    def _context(self, name: str) -> ssl.SSLContext:
        """Return a context with a certificate for a name."""
        if name in self._certificates:
            return self._certificates[name]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.sni_callback = self._select
        with open(_CERTIFICATE, "wb") as file:
            file.write(certificate(name))
        try:
            context.load_cert_chain(_CERTIFICATE)
        finally:
            os.unlink(_CERTIFICATE)
        while len(self._certificates) >= _MAX_CONTEXTS:
            del self._certificates[next(iter(self._certificates))]
        self._certificates[name] = context
        return context

    def _select(self, tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        """Use the certificate for the name that a client asks for. Called in a handshake."""
        if name:
            self._server_name = name[:255]
            tls.context = self._context(self._server_name)

    # -- UDP ---------------------------------------------------------------------------------

    def datagram(self, sock: socket.socket) -> None:
        """Receive one datagram, answer it if it is a DNS query, and list it."""
        try:
            data, ancillary, _, source = sock.recvmsg(65535, _ANCILLARY)
        except OSError:  # an ICMP error, or no datagram any more
            return
        destination = _original(ancillary)
        if destination is None:
            return
        self._counts["datagrams"] += 1
        name = ""
        if destination[1] == 53:
            name, answer = answers.dns_answer(data, self._names)
            if answer:
                self._reply(sock.family, destination, source, answer)
        now = time.time()
        if int(now) != self._second:
            self._second, self._listed = int(now), 0
        self._listed += 1
        if self._listed > DATAGRAM_RATE:
            self._journal.unrecorded += 1
            return
        self._journal.write(
            time=now,
            direction="out",
            protocol="udp",
            source=_text(source),
            destination=_text(destination),
            name=self._names.name(destination[0]),
            **({"service": "dns", "query": name} if destination[1] == 53 else {}),
            received=len(data),
            data=_kept(data[:KEPT_DATAGRAM]),
        )

    def _reply(
        self, family: int, source: tuple[str, int], destination: tuple[Any, ...], data: bytes
    ) -> None:
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(source)
                sock.sendto(data, destination)
            except OSError as error:
                self._journal.write(time=time.time(), direction="error", error=str(error))

    # -- published ports ---------------------------------------------------------------------

    async def incoming(self, sock: socket.socket, peer: tuple[Any, ...], port: int) -> None:
        """Relay a connection to a published port, and record it as a session."""
        began = time.time()
        title = f"{_text(peer)} to port {port}"
        lifetime = time.monotonic() + INCOMING_LIFETIME
        client = Stream(sock, INCOMING_IDLE, lifetime, "the client", MAX_INCOMING_BYTES)
        fields: dict[str, Any] = {"end": "the container refused it"}
        inside = await self._connect(peer, port)
        if inside is not None:
            server = Stream(inside, INCOMING_IDLE, lifetime, limit=MAX_INCOMING_BYTES)
            name, cast = self._cast(title)
            try:
                await self._relay(client, server, cast)
            finally:
                inside.close()
                if cast is not None:
                    cast.close()
            fields = {
                "session": name,
                "received": client.received,
                "sent": client.sent,
                "end": client.end or server.end,
                "data": _kept(client.first),
                "answer": _kept(client.first_sent),
            }
        self._journal.write(
            time=began,
            direction="in",
            protocol="tcp",
            source=_text(peer),
            destination=_text((ADDRESS, port)),
            seconds=round(time.time() - began, 3),
            **fields,
        )

    async def _connect(self, peer: tuple[Any, ...], port: int) -> socket.socket | None:
        """Connect to the container with the address of the client; None if it does not listen."""
        six = ":" in peer[0] and not peer[0].startswith("::ffff:")
        own = (ADDRESS6, GATEWAY6) if six else (ADDRESS, GATEWAY)
        source = peer[0].removeprefix("::ffff:")
        address = ipaddress.ip_address(source.partition("%")[0])
        sources = [] if address.is_loopback or address.is_link_local else [str(address)]
        loop = asyncio.get_running_loop()
        for candidate in (*sources, own[1]):
            family = socket.AF_INET6 if six else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                sock.bind((candidate, 0))
                await asyncio.wait_for(loop.sock_connect(sock, (own[0], port)), _CONNECT)
            except ConnectionRefusedError:
                sock.close()
                return None
            except (OSError, TimeoutError):
                sock.close()
            else:
                return sock
        return None

    async def _relay(self, client: Stream, server: Stream, cast: CastWriter | None) -> None:
        async def copy(source: Stream, target: Stream, record: Callable[[bytes], object]) -> None:
            while data := await source.read():
                record(data)
                if not await target.write(data):
                    return
            with contextlib.suppress(OSError):
                target.sock.shutdown(socket.SHUT_WR)

        await asyncio.gather(
            copy(client, server, lambda data: cast.input(_without_telnet(data)) if cast else None),
            copy(server, client, lambda data: cast.output(_without_telnet(data)) if cast else None),
        )

    def _cast(self, title: str) -> tuple[str, CastWriter | None]:
        """Return the name of a new session and its writer; no writer beyond the limit."""
        if self._sessions >= MAX_SESSIONS:
            self._journal.unrecorded += 1
            return "", None
        self._sessions += 1
        name = f"in-{self._sessions:04d}"

        def open_part(number: int) -> int:
            return self._open_file(name if number == 1 else f"{name}.{number}")

        try:
            return name, CastWriter(open_part, title)
        except OSError as error:
            self._journal.write(time=time.time(), direction="error", error=str(error))
            return "", None

    def _open_file(self, name: str) -> int:
        """Ask the supervisor for a new file of a session.

        :raises OSError: when it does not answer.
        """
        self._control.settimeout(_CONTROL)
        try:
            self._control.send(name.encode())
            _, fds, _, _ = socket.recv_fds(self._control, 16, 1)
        finally:
            self._control.setblocking(False)
        if not fds:
            raise OSError(errno.EIO, "the supervisor did not open the file of a session")
        return fds[0]

    async def run(
        self,
        tcp: list[socket.socket],
        udp: list[socket.socket],
        published: dict[int, list[socket.socket]],
    ) -> None:
        """Serve until the supervisor ends it, or has ended."""
        loop = asyncio.get_running_loop()
        for listener in tcp:
            self._spawn(self.accept(listener, self.outgoing, MAX_CONNECTIONS, "outgoing"))
        for sock in udp:
            loop.add_reader(sock, self.datagram, sock)
        for port, listeners in published.items():
            for listener in listeners:
                self._spawn(
                    self.accept(
                        listener,
                        lambda sock, peer, port=port: self.incoming(sock, peer, port),
                        MAX_INCOMING,
                        "incoming",
                    )
                )
        self._control.setblocking(False)
        await loop.sock_recv(self._control, 16)
        pending = [task for task in self._tasks if not task.done()]
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=1.0) if pending else None
        with contextlib.suppress(OSError):
            self._control.send(_encode(self.counts()))

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)


def certificate(name: str) -> bytes:
    """Return a new self-signed certificate for a host name or address, with its key, as PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    plain = name if name.isascii() and 0 < len(name) < 64 else "localhost"
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, plain)])
    try:
        alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(plain))
    except ValueError:
        alternative = x509.DNSName(plain)
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=30))
        .not_valid_after(now + datetime.timedelta(days=335))
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _without_telnet(data: bytes) -> bytes:
    """Return bytes of a terminal without the commands of telnet (RFC 854)."""
    return _TELNET.sub(b"", data) if b"\xff" in data else data


def _text(address: tuple[Any, ...]) -> str:
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _original(ancillary: list[tuple[int, int, bytes]]) -> tuple[str, int] | None:
    """Return the destination of a datagram before TPROXY: a struct sockaddr_in or sockaddr_in6."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, sink_network.IP_RECVORIGDSTADDR) and len(data) >= 8:
            return socket.inet_ntop(socket.AF_INET, data[4:8]), struct.unpack_from(">H", data, 2)[0]
        if (level, kind) == (socket.IPPROTO_IPV6, sink_network.IPV6_RECVORIGDSTADDR) and len(
            data
        ) >= 24:
            address = socket.inet_ntop(socket.AF_INET6, data[8:24])
            return address, struct.unpack_from(">H", data, 2)[0]
    return None


def confine(filter_program: tuple[bytes, int]) -> None:
    """Give up files, capabilities, users and system calls. The caller is in new namespaces.

    :raises OSError: when the kernel refuses a step.
    """
    mounts.mount(None, "/", None, mounts.MS.PRIVATE | mounts.MS.REC)
    flags = mounts.MS.NOSUID | mounts.MS.NODEV | mounts.MS.NOEXEC
    mounts.mount("tmpfs", "/tmp", "tmpfs", flags, f"mode=700,uid={UID},size=256k,nr_inodes=64")
    os.chdir("/tmp")
    mounts.pivot_root(".", ".")
    mounts.umount2(".", mounts.MNT.DETACH)
    os.chdir("/")
    for kind, limit in (
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 1024),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 2 * LIST_SIZE),
        (resource.RLIMIT_AS, 1 << 30),
    ):
        resource.setrlimit(kind, (limit, limit))
    sandbox_confinement.set_ids(UID, UID)
    process_calls.prctl(process_calls.PR_SET_PDEATHSIG, 9)
    process_calls.prctl(process_calls.PR_SET_DUMPABLE, 0)
    process_calls.prctl(process_calls.PR_SET_NO_NEW_PRIVS, 1)
    seccomp.install(*filter_program)


def serve(
    control: socket.socket,
    list_fd: int,
    published: dict[int, list[socket.socket]],
    filter_program: tuple[bytes, int],
) -> NoReturn:
    """Be the sink, in the namespaces of this process, until the supervisor ends it."""
    try:
        process_calls.set_name(SINK)
        control.recv(16)  # the link exists
        tcp, udp = sink_network.sockets()
        certificate("localhost")  # imports what cannot be imported later
        _import_codecs()
        keep = [0, 1, 2, control.fileno(), list_fd]
        keep += [
            s.fileno() for s in (*tcp, *udp, *(s for each in published.values() for s in each))
        ]
        process_calls.close_fds_except(keep)
        loop = asyncio.new_event_loop()
        null = os.open("/dev/null", os.O_RDWR)
        confine(filter_program)
        for fd in range(3):
            os.dup2(null, fd)
        sink = Sink(control, list_fd)
        os.close(null)
        control.send(b"ready")
        loop.run_until_complete(sink.run(tcp, udp, published))
    except BaseException as error:  # noqa: BLE001 - reported, and the process exits
        with contextlib.suppress(OSError):
            control.send(f"E{type(error).__name__}: {error}".encode()[:1000])
        os._exit(1)
    os._exit(0)


def detach_stdio() -> None:
    """Replace the standard streams, which belong to the hook, by the null device."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in range(3):
        os.dup2(null, fd)
    os.close(null)


def _import_codecs() -> None:
    """Import what Python would import at the first use."""
    import encodings.idna
    import stringprep  # noqa: F401

    "x".encode("idna")
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    assert binascii is not None
    assert sys is not None
    assert _socket is not None
    assert encodings.idna is not None
