"""Typical Dockerfiles, each compared with its ``.expected`` file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jaula.images.dockerfile.apply_instructions import Scope
from jaula.images.dockerfile.ast import Dockerfile, Instruction
from jaula.images.dockerfile.dockerfile_parser import parse
from jaula.images.dockerfile.stage_graph import plan

FOLDER = Path(__file__).parent / "examples"
NAMES = sorted(path.name for path in FOLDER.iterdir() if not path.suffix)


def described(dockerfile: Dockerfile) -> str:
    """Return the parsed file, one item per line; fields with default values are omitted."""
    rows = [f"{k} {v}" for k, v in msgspec.structs.asdict(dockerfile.directives).items() if v]
    rows += [line(argument) for argument in dockerfile.arguments]
    for stage in dockerfile.stages:
        rows.append(f"\nstage {stage.index}: {line(stage.base)}")
        rows += [line(instruction) for instruction in stage.instructions]
    rows += ["", *(f"{r.location.first}: {r.rule}: {r.message}" for r in dockerfile.warnings)]
    return "\n".join(rows).rstrip() + "\n"


def line(instruction: Instruction) -> str:
    fields: dict[str, Any] = {}
    for field in msgspec.structs.fields(instruction):
        value = getattr(instruction, field.name)
        if field.name not in ("location", "source", "flags") and value != field.default:
            fields[field.name] = value
    output = " ".join(f"{k}={msgspec.json.encode(plain(v)).decode()}" for k, v in fields.items())
    return f"{instruction.location.first}-{instruction.location.last} {instruction.word} {output}"


def plain(value: Any) -> Any:
    """Return structures as their non-default fields."""
    if isinstance(value, msgspec.Struct):
        return {
            f.name: plain(getattr(value, f.name))
            for f in msgspec.structs.fields(value)
            if getattr(value, f.name) != f.default
        }
    return [plain(item) for item in value] if isinstance(value, tuple) else value


@pytest.mark.parametrize("name", NAMES)
def test_a_dockerfile_is_parsed_as_expected(name: str) -> None:
    expected = (FOLDER / f"{name}.expected").read_text()
    assert described(parse((FOLDER / name).read_bytes(), name)) == expected


@pytest.mark.parametrize("name", NAMES)
def test_every_stage_can_be_planned_and_every_instruction_has_its_values(name: str) -> None:
    dockerfile = parse((FOLDER / name).read_bytes(), name)
    for stage in dockerfile.stages:
        made = plan(dockerfile, target=str(stage.index))
        assert made.stages[-1].stage is stage
        scope = Scope(made, ("PATH=/usr/bin:/bin",))
        for instruction in made.stages[-1].instructions:
            assert "\n" not in scope.take(instruction).headline


def test_there_are_a_dozen_dockerfiles() -> None:
    assert len(NAMES) >= 12


def test_parsing_is_fast() -> None:
    texts = [(FOLDER / name).read_bytes() for name in NAMES]
    best = min(timed(texts) for _ in range(5))
    assert best / len(texts) < 0.002  # seconds for each, and each has about ten instructions


def timed(texts: list[bytes]) -> float:
    begin = time.process_time()
    for text in texts:
        parse(text)
    return time.process_time() - begin
