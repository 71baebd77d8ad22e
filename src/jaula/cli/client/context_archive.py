"""Export and import of contexts: ``meta.json`` and ``tls/docker/*.pem`` in a tar or a zip archive.

Source: docker/cli ``cli/context/store``, ``Export`` and ``Import``.
"""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Iterator

from jaula.cli.cli_errors import CliError
from jaula.cli.client.contexts import ENDPOINT, Context
from jaula.cli.client.engine_address import TLS_FILES

MAX_SIZE = 10 << 20  # bytes of an archive, Docker's limit
_META = "meta.json"
_TLS = f"tls/{ENDPOINT}/"


def pack(context: Context) -> bytes:
    """Return the tar archive of a context."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, _META, json.dumps(context.document(), separators=(",", ":")).encode(), 0o644)
        for name in ("tls", f"tls/{ENDPOINT}") if context.files else ("tls",):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o700
            archive.addfile(entry)
        for name, data in context.files.items():
            _add(archive, _TLS + name, data, 0o600)
    return out.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))


def unpack(data: bytes) -> Context:
    """Return the context in an archive.

    :raises CliError: when the archive is not an exported context.
    """
    if len(data) > MAX_SIZE:
        raise CliError(f"the archive has more than {MAX_SIZE} bytes")
    meta, files = None, {}
    try:
        for name, content in _members(data):
            if name == _META:
                meta = json.loads(content)
            elif name.startswith(_TLS) and name.removeprefix(_TLS) in TLS_FILES:
                files[name.removeprefix(_TLS)] = content
            else:
                raise CliError(f"unexpected context file: {name[:80]!r}")
    except (tarfile.TarError, zipfile.BadZipFile, ValueError, EOFError, RecursionError) as error:
        raise CliError(f"not an exported context: {error}") from None
    if not isinstance(meta, dict):
        raise CliError("invalid context: no metadata found")
    try:
        endpoint = meta["Endpoints"][ENDPOINT]
        return Context(
            "",
            str((meta.get("Metadata") or {}).get("Description") or ""),
            str(endpoint.get("Host") or ""),
            endpoint.get("SkipTLSVerify") is True,
            files,
            meta,
        )
    except (KeyError, TypeError, AttributeError):
        raise CliError("invalid context: the docker endpoint is missing") from None


def _members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield file names and contents; the total size is limited to that of an archive."""
    left = MAX_SIZE
    if data[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            for member in packed.infolist():
                if not member.is_dir():
                    with packed.open(member) as file:
                        content = file.read(left + 1)
                    left -= len(content)
                    yield member.filename, _check_size(content, left)
        return
    # Docker's archives lack the end-of-archive blocks and the padding of the last file.
    padded = data + bytes(-len(data) % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE)
    with tarfile.open(fileobj=io.BytesIO(padded), mode="r:") as archive:
        for entry in archive:
            if entry.isfile() and (extracted := archive.extractfile(entry)) is not None:
                yield entry.name, extracted.read(MAX_SIZE)


def _check_size(content: bytes, left: int) -> bytes:
    if left < 0:
        raise ValueError("it is too large")
    return content
