"""Answers of the sink: plausible to a client, useless to an intruder, safe for the sink."""

from __future__ import annotations

import ipaddress
import ssl
import struct

from hypothesis import given
from hypothesis import strategies as st

from jaula.features.honeypot import answers, sink
from jaula.network.dns import message


def query(name: str, type_: int) -> bytes:
    labels = b"".join(bytes([len(x)]) + x.encode() for x in name.split("."))
    return struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + labels + struct.pack(">BHH", 0, type_, 1)


def test_every_name_has_an_address_that_no_host_of_the_internet_has() -> None:
    names = answers.Names()
    for text in ("c2.example", "a", "x" * 60 + ".net"):
        v4, v6 = names.addresses(text)
        assert ipaddress.ip_address(v4) in answers.POOL
        assert ipaddress.ip_address(v6) in answers.POOL6
        assert names.addresses(text) == (v4, v6)
        assert names.name(v4) == names.name(v6) == text


def test_names_are_bounded() -> None:
    names = answers.Names()
    for number in range(3 * answers.MAX_NAMES):
        names.addresses(f"n{number}.example")
    assert len(names._names) <= 2 * answers.MAX_NAMES
    assert names.name(names.addresses("n1.example")[0]) == "n1.example"


def test_a_query_gets_the_address_of_its_type() -> None:
    names = answers.Names()
    v4, v6 = names.addresses("c2.example")
    name, answer = answers.dns_answer(query("C2.example", message.A), names)
    assert name == "c2.example"
    assert answer.endswith(ipaddress.ip_address(v4).packed)
    assert answers.dns_answer(query("c2.example", message.AAAA), names)[1].endswith(
        ipaddress.ip_address(v6).packed
    )
    back = f"{ipaddress.ip_address(v4).reverse_pointer}"
    assert b"\x02c2\x07example" in answers.dns_answer(query(back, message.PTR), names)[1]


@given(data=st.binary(max_size=600))
def test_no_bytes_break_the_answers(data: bytes) -> None:
    answers.dns_answer(data, answers.Names())
    answers.is_tls(data)
    if answers.is_http(data):
        answers.http_missing(data)
        answers.http_answer(data)
    smtp = answers.Smtp()
    smtp.feed(data)
    sink._kept(data)
    sink._without_telnet(data)


def test_a_download_is_a_script_that_does_nothing() -> None:
    answer = answers.http_answer(b"GET /bins.sh HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b"#!/bin/sh\nexit 0\n"
    assert b"Content-Length: %d\r\n" % len(body) in answer
    assert answers.http_answer(b"GET /robots.txt HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 404 ")
    assert answers.http_answer(b"HEAD / HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\n")


def test_a_body_is_read_up_to_its_length() -> None:
    request = b"POST /gate HTTP/1.1\r\nContent-Length: 5\r\n\r\n"
    assert answers.http_missing(request[:20]) == 1
    assert answers.http_missing(request) == 5
    assert answers.http_missing(request + b"12345") == 0


def test_mail_is_accepted() -> None:
    smtp = answers.Smtp()
    assert smtp.feed(b"EHLO x\r\nMAIL FROM:<a>\r\n") == b"250 mail\r\n" * 2
    assert smtp.feed(b"DATA\r\n").startswith(b"354 ")
    assert smtp.feed(b"text\r\nQUIT\r\n") == b""
    assert smtp.feed(b".\r\n").startswith(b"250 ")
    assert smtp.feed(b"QUIT\r\n").startswith(b"221 ")
    assert smtp.ended


def test_a_long_line_ends_a_dialogue() -> None:
    smtp = answers.Smtp()
    smtp.feed(b"x" * 5000)
    assert smtp.ended


def test_commands_of_telnet_are_not_in_a_recording() -> None:
    data = b"\xff\xfd\x01\xff\xfa\x1f\x00\x50\x00\x18\xff\xf0login: "
    assert sink._without_telnet(data) == b"login: "


def test_a_certificate_is_for_the_name_or_the_address() -> None:
    for name in ("c2.example", "203.0.113.9", "x" * 300, "grün"):
        pem = sink.certificate(name).decode()
        assert ssl.PEM_cert_to_DER_cert(pem[: pem.index("-----BEGIN PRIVATE")])


def test_the_destination_of_a_datagram_is_read_from_its_control_message() -> None:
    from socket import IPPROTO_IP, IPPROTO_IPV6

    four = struct.pack("=H", 2) + struct.pack(">H", 53) + bytes([192, 0, 2, 1]) + bytes(8)
    six = struct.pack("=H", 10) + struct.pack(">HI", 123, 0) + b"\x20\x01" + bytes(13) + b"\x01"
    assert sink._original([(IPPROTO_IP, 20, four)]) == ("192.0.2.1", 53)
    assert sink._original([(IPPROTO_IPV6, 74, six + bytes(4))]) == ("2001::1", 123)
    assert sink._original([(IPPROTO_IP, 20, b"\0")]) is None
    assert sink._original([]) is None
