"""The LLB definitions that are read: the result of another build, and a remote repository or file.

There is no solver. ``docker buildx bake URL`` sends a definition with one source, reads its files,
and sends a copy of one directory of it as the context of a build. Every other definition is
refused.

Pure. Source: moby/buildkit ``solver/pb/ops.proto`` and ``client/llb/source.go`` (the attributes of
a git source), docker/buildx ``bake/remote.go``.
"""

from __future__ import annotations

import hashlib
import posixpath

from jaula.errors import Unsupported
from jaula.features.build.buildkit.proto.ops_pb2 import Definition, Op, SourceOp
from jaula.spec.protobuf import decoder

RESULT = "jaula-result://"
"""The source in a definition that stands for the result of another build."""

_GIT, _HTTP = "git://", ("http://", "https://")
_FULL_URL, _CHECKSUM = "git.fullurl", "git.checksum"
_MAX_OPERATIONS = 16


def result_of(definition: Definition | None) -> str:
    """Return the id of the result that a definition stands for; '' if it is another definition."""
    for operation in _operations(definition).values():
        if operation.source.identifier.startswith(RESULT):
            return operation.source.identifier.removeprefix(RESULT)
    return ""


def remote_of(definition: Definition | None) -> str:
    """Return the address of the repository or file that a definition is, as ``ADD`` accepts it.

    A directory of a repository that is copied to the root is part of the address.

    :raises Unsupported: when it is another definition.
    """
    operations = _operations(definition)
    last = next(reversed(operations.values()), Op())
    operation = _input(operations, last)
    directory = ""
    if operation.HasField("file"):
        actions = operation.file.actions
        if len(actions) != 1 or not actions[0].HasField("copy") or actions[0].copy.dest != "/":
            raise _refused()
        directory = actions[0].copy.src
        operation = _input(operations, operation)
    source = operation.source
    if source.identifier.startswith(_GIT):
        return _git_address(source, directory)
    if source.identifier.startswith(_HTTP) and not directory:
        return source.identifier
    raise _refused()


def _git_address(source: SourceOp, directory: str) -> str:
    base, _, fragment = source.identifier.partition("#")
    ref, _, below = fragment.partition(":")
    address = source.attrs.get(_FULL_URL) or f"https://{base.removeprefix(_GIT)}"
    if commit := source.attrs.get(_CHECKSUM):
        address += f"?commit={commit}"
    below = posixpath.normpath(posixpath.join("/", below, directory.lstrip("/"))).lstrip("/")
    fragment = f"{ref}:{below}" if below else ref
    return f"{address}#{fragment}" if fragment else address


def _operations(definition: Definition | None) -> dict[str, Op]:
    """Return the operations of a definition by digest; none if it is damaged or large."""
    decode = decoder(Op)
    listed = definition.ops if definition is not None else ()
    if len(listed) > _MAX_OPERATIONS:
        return {}
    try:
        return {"sha256:" + hashlib.sha256(data).hexdigest(): decode(data) for data in listed}
    except ValueError:
        return {}


def _input(operations: dict[str, Op], operation: Op) -> Op:
    if len(operation.inputs) != 1 or operation.inputs[0].digest not in operations:
        raise _refused()
    return operations[operation.inputs[0].digest]


def _refused() -> Unsupported:
    return Unsupported(
        "LLB definitions are not supported", hint="this builder reads Dockerfiles only"
    )
