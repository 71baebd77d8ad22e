"""The codec of TLS: data of many records in large pieces, and the error after it."""

from __future__ import annotations

import ssl

import pytest

from harness.certificates import Authority
from jaula import tls
from jaula.tls import CHUNK_SIZE, TlsCodec, TlsError

pytestmark = pytest.mark.needs("openssl")


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = Authority(tmp_path_factory.mktemp("tls") / "authority")
    signed = authority.sign("peer", usage="clientAuth,serverAuth", addresses=("127.0.0.1",))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(signed / "cert.pem", signed / "key.pem")
    client = tls.client_context(authority.file, signed / "cert.pem", signed / "key.pem")
    return server, client


@pytest.fixture
def pair(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> tuple[TlsCodec, TlsCodec]:
    """Return the codecs of a server and its client, after the handshake."""
    server = TlsCodec(contexts[0], server=True)
    client = TlsCodec(contexts[1], server=False, name="127.0.0.1")
    for _ in range(4):
        for one, other in ((client, server), (server, client)):
            one.do_handshake()
            if data := one.outgoing():
                other.feed(data)
    server.read()
    client.read()
    return server, client


def test_records_are_read_in_large_pieces(pair: tuple[TlsCodec, TlsCodec]) -> None:
    server, client = pair
    client.write(bytes(CHUNK_SIZE + 5))
    server.feed(client.outgoing())
    assert len(server.read()) == CHUNK_SIZE
    assert len(server.read()) == 5
    assert server.read() == b""
    assert not server.ended


def test_data_before_the_end_is_not_lost(pair: tuple[TlsCodec, TlsCodec]) -> None:
    server, client = pair
    client.write(b"last")
    client.end()
    server.feed(client.outgoing())
    assert server.read() == b"last"
    assert server.read() == b""
    assert server.ended


def test_data_before_a_damaged_record_is_not_lost(pair: tuple[TlsCodec, TlsCodec]) -> None:
    server, client = pair
    client.write(b"good")
    server.feed(client.outgoing())
    client.write(b"damaged")
    data = bytearray(client.outgoing())
    data[-1] ^= 1
    server.feed(bytes(data))
    assert server.read() == b"good"
    for _ in range(2):
        with pytest.raises(TlsError):
            server.read()
