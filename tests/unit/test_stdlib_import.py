"""asyncio without OpenSSL, and with it from the first connection with TLS."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from harness.certificates import Authority

SOURCE = str(Path(__file__).resolve().parents[2] / "src")
TLS = """
import ssl

place = sys.argv[2]
server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
server.load_cert_chain(f"{place}/cert.pem", f"{place}/key.pem")
client = ssl.create_default_context(cafile=f"{place}/ca.pem")

async def echo(reader, writer):
    writer.write(await reader.readline())
    await writer.drain()
    writer.close()

async def main():
    listening = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server)
    port = listening.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
    writer.write(b"hello\\n")
    print((await reader.readline()).decode().strip(), writer.get_extra_info("ssl_object").version())
    writer.close()
    listening.close()

asyncio.run(main())
"""


def python(program: str, *arguments: str) -> str:
    start = "import sys\nsys.path.insert(0, sys.argv[1])\nfrom jaula import stdlib_import\n"
    done = subprocess.run(
        [sys.executable, "-I", "-c", start + program, SOURCE, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_asyncio_is_imported_without_openssl_and_syntax_trees() -> None:
    names = "('ssl', '_ssl', '_ast', '_hashlib')"
    printed = python(
        f"stdlib_import.import_asyncio(); import asyncio, dataclasses, inspect\n"
        f"print([name for name in {names} if name in sys.modules])"
    )
    assert printed == "[]"


def test_the_modules_that_were_left_out_can_be_imported_afterwards() -> None:
    printed = python(
        "stdlib_import.import_asyncio(); import ast, inspect, ssl, textwrap, tokenize\n"
        "print(ast.literal_eval('[1]'), tokenize.NAME, ssl.OP_NO_TICKET > 0,\n"
        "    inspect.getsource(textwrap.dedent)[:10], sys.modules['ast'].__file__ != '')"
    )
    assert printed == "[1] 1 True def dedent True"


def test_connections_use_tls_once_it_is_enabled(tmp_path: Path) -> None:
    place = Authority(tmp_path).server()
    enabled = "stdlib_import.import_asyncio(); import asyncio\nstdlib_import.enable_tls()\n"
    assert python(enabled + TLS, str(place)) == "hello TLSv1.3"


def test_enabling_tls_of_a_whole_asyncio_changes_nothing(tmp_path: Path) -> None:
    place = Authority(tmp_path).server()
    enabled = (
        "import asyncio; from asyncio import sslproto; before = sslproto.SSLProtocol\n"
        "stdlib_import.import_asyncio(); stdlib_import.enable_tls()\n"
        "assert sslproto.SSLProtocol is before\n"
    )
    assert python(enabled + TLS, str(place)) == "hello TLSv1.3"
