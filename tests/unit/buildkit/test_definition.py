"""LLB definitions: the few that are read, and all others."""

from __future__ import annotations

import hashlib

import pytest

from jaula.errors import Unsupported
from jaula.features.build.buildkit.definition import RESULT, remote_of, result_of
from jaula.features.build.buildkit.proto.ops_pb2 import (
    Definition,
    FileAction,
    FileActionCopy,
    FileOp,
    Input,
    Op,
    SourceOp,
)


def digest(operation: Op) -> str:
    return "sha256:" + hashlib.sha256(operation.SerializeToString()).hexdigest()


def definition(*operations: Op) -> Definition:
    """Return a definition in which each operation has the one before as its input."""
    linked: list[Op] = []
    for operation in (*operations, Op()):
        if linked:
            operation.inputs.append(Input(digest=digest(linked[-1])))
        linked.append(operation)
    return Definition(ops=[operation.SerializeToString() for operation in linked])


def git(identifier: str, **attributes: str) -> Op:
    named = {f"git.{key}": value for key, value in attributes.items()}
    return Op(source=SourceOp(identifier=identifier, attrs=named))


def copy(source: str, target: str = "/", *, twice: bool = False) -> Op:
    action = FileAction(copy=FileActionCopy(src=source, dest=target))
    return Op(file=FileOp(actions=[action] * (2 if twice else 1)))


@pytest.mark.parametrize(
    ("operations", "address"),
    [
        ([git("git://h/a.git", fullurl="http://h:8/a.git")], "http://h:8/a.git"),
        ([git("git://h/a.git#main:d", fullurl="git@h:a.git")], "git@h:a.git#main:d"),
        ([git("git://h/a.git#main")], "https://h/a.git#main"),
        ([git("git://h/a.git#v1", checksum="abcd")], "https://h/a.git?commit=abcd#v1"),
        ([git("git://h/a.git#v1:d"), copy("/e/../f")], "https://h/a.git#v1:d/f"),
        ([git("git://h/a.git"), copy("../../x")], "https://h/a.git#:x"),
        ([Op(source=SourceOp(identifier="https://h/bake.hcl"))], "https://h/bake.hcl"),
    ],
)
def test_a_source_is_an_address(operations: list[Op], address: str) -> None:
    assert remote_of(definition(*operations)) == address


@pytest.mark.parametrize(
    "made",
    [
        None,
        Definition(),
        Definition(ops=[b"\xff\xff"]),
        Definition(ops=[Op().SerializeToString()] * 100),
        definition(Op(source=SourceOp(identifier="docker-image://x"))),
        definition(Op(source=SourceOp(identifier="local://context"))),
        definition(git("git://h/a.git"), copy("a", "/elsewhere")),
        definition(git("git://h/a.git"), copy("a", twice=True)),
        definition(git("git://h/a.git"), copy("a"), copy("b")),
        definition(Op(source=SourceOp(identifier="https://h/x.tar")), copy("x.tar")),
        definition(copy("a")),
        Definition(ops=[Op(inputs=[Input(digest="sha256:0")]).SerializeToString()]),
    ],
)
def test_every_other_definition_is_refused(made: Definition | None) -> None:
    with pytest.raises(Unsupported, match="LLB definitions are not supported"):
        remote_of(made)
    assert result_of(made) == ""


def test_a_result_is_found_by_its_source() -> None:
    made = definition(Op(source=SourceOp(identifier=RESULT + "id")))
    assert result_of(made) == "id"
