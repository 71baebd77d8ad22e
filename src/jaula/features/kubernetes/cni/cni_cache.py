"""Records of attachments: what DEL and CHECK need of the ADD before, also after a crash.

Source: libcni's cache (``cniCacheV1``). The names of files and their members are libcni's. A record
has the configuration of the time of ADD, complete. Two things differ from libcni:

* A record is written before the first plugin runs, without a result. So a DEL after a crash during
  ADD uses the configuration of that ADD.
* ``netnsIdentity`` names the namespace, since the path may lead to another one later.

A record is written to a temporary name, synchronized and renamed. The methods block.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from jaula import trusted_file
from jaula.errors import CorruptState, InvalidRequest, Unavailable, resource_error
from jaula.features.kubernetes.cni import cni_config, cni_result
from jaula.features.kubernetes.cni.cni_config import NetworkConfig
from jaula.features.kubernetes.cni.cni_result import Result
from jaula.features.kubernetes.cni.runtime_config import CapabilityArgs
from jaula.kernel.syncfs import fsync_paths

_KIND = "cniCacheV1"
_LIMIT = 8 << 20  # bytes of a record
_TEMPORARY = ".new-"  # no network has a name that begins with a dot
_DESCRIPTION = "record of an attachment"
_NO_RESULT = msgspec.Raw(b"null")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One attachment: the parameters of its ADD, and the result if ADD has succeeded."""

    config: NetworkConfig
    container_id: str
    ifname: str
    netns: str
    netns_identity: str
    args: tuple[tuple[str, str], ...] = ()
    capability_args: CapabilityArgs = CapabilityArgs()
    result: Result | None = None


class _Document(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A record on the disk."""

    kind: str
    container_id: str
    config: bytes  # in base64
    if_name: str
    network_name: str
    netns: str = ""
    netns_identity: str = ""
    cni_args: tuple[tuple[str, str], ...] = ()
    capability_args: CapabilityArgs = CapabilityArgs()
    result: msgspec.Raw = _NO_RESULT


class ResultCache:
    """The records below ``directory``, which belongs to the engine."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "results"

    def prepare(self) -> None:
        """Create the directory, and remove records whose writing was interrupted.

        :raises Unavailable: when the directory cannot be written.
        """
        try:
            for directory in (self._directory.parent, self._directory):
                directory.mkdir(mode=0o700, exist_ok=True)  # parents=True ignores the mode
            for path in self._directory.iterdir():
                if path.name.startswith(_TEMPORARY):
                    path.unlink()
        except OSError as error:
            raise Unavailable(f"cannot write to {self._directory}: {error.strerror}") from error

    def write(self, record: Record) -> None:
        """Store a record; it survives a power failure when this returns.

        :raises Unavailable: when it cannot be written.
        """
        document = _Document(
            kind=_KIND,
            container_id=record.container_id,
            config=record.config.encode(),
            if_name=record.ifname,
            network_name=record.config.name,
            netns=record.netns,
            netns_identity=record.netns_identity,
            cni_args=record.args,
            capability_args=record.capability_args,
            result=_NO_RESULT
            if record.result is None
            else msgspec.Raw(record.result.encode(record.config.version)),
        )
        name = _name(record.config.name, record.container_id, record.ifname)
        temporary = self._directory / f"{_TEMPORARY}{name}"
        try:
            fd = os.open(
                temporary,
                os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o600,
            )
            with open(fd, "wb") as file:
                file.write(msgspec.json.encode(document))
                file.flush()
                os.fsync(fd)
            os.rename(temporary, self._directory / name)
            fsync_paths(self._directory)
        except OSError as error:
            what = f"cannot store the {_DESCRIPTION} {name}"
            try:
                temporary.unlink(missing_ok=True)
            except OSError:
                pass  # the first error says why; prepare() removes the file
            raise resource_error(error, what) or Unavailable(f"{what}: {error.strerror}") from error

    def find(self, container_id: str, ifname: str) -> Record | None:
        """Return the record of an attachment, None if absent.

        :raises CorruptState: when it is damaged.
        """
        for name in self._names():
            if name.endswith(f"-{container_id}-{ifname}"):
                record = self._read(name)
                if record is not None and (record.container_id, record.ifname) == (
                    container_id,
                    ifname,
                ):
                    return record
        return None

    def records(self) -> tuple[list[Record], list[CorruptState]]:
        """Return the records, and the error of each damaged one."""
        records, damaged = [], []
        for name in self._names():
            try:
                record = self._read(name)
            except CorruptState as error:
                damaged.append(error)
                continue
            if record is not None:
                records.append(record)
        return records, damaged

    def remove(self, record: Record) -> None:
        """Remove a record.

        :raises Unavailable: when it cannot be removed.
        """
        name = _name(record.config.name, record.container_id, record.ifname)
        try:
            (self._directory / name).unlink(missing_ok=True)
        except OSError as error:
            what = f"cannot remove the {_DESCRIPTION} {name}"
            raise resource_error(error, what) or Unavailable(f"{what}: {error.strerror}") from error

    def _names(self) -> list[str]:
        try:
            return sorted(n for n in os.listdir(self._directory) if not n.startswith("."))
        except FileNotFoundError:
            return []

    def _read(self, name: str) -> Record | None:
        path = str(self._directory / name)
        try:
            data = trusted_file.read(path, _LIMIT, _DESCRIPTION, required=False)
            if data is None:
                return None
            return _record(msgspec.json.decode(data, type=_Document), path)
        except (InvalidRequest, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CorruptState(
                f"damaged {_DESCRIPTION} {path}: {error}", hint="remove the file to forget it"
            ) from None


def _record(document: _Document, source: str) -> Record:
    if document.kind != _KIND:
        raise InvalidRequest(f"kind {document.kind[:200]!r} must be {_KIND}")
    network = cni_config.parse_list(document.config, source)
    return Record(
        config=network,
        container_id=document.container_id,
        ifname=document.if_name,
        netns=document.netns,
        netns_identity=document.netns_identity,
        args=document.cni_args,
        capability_args=document.capability_args,
        result=None
        if document.result == _NO_RESULT
        else cni_result.decode(bytes(document.result), network.version),
    )


def _name(network: str, container_id: str, ifname: str) -> str:
    return f"{network}-{container_id}-{ifname}"
