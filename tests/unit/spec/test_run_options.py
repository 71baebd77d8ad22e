"""The table of options is consistent, and what is written from it is up to date."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jaula.cli import command_table
from jaula.cli.command_parser import parse
from jaula.cli.containers import create_body
from jaula.spec import api_documents, api_networks, run_options
from jaula.spec.run_options import OPTIONS, Option

PROJECT = Path(__file__).parents[3]
DOCUMENTS: dict[str, type[msgspec.Struct]] = {
    run_options.HOST_CONFIG: api_documents.HostConfig,
    run_options.CONFIG: api_documents.ContainerCreate,
    run_options.HEALTHCHECK: api_documents.Healthcheck,
    run_options.ENDPOINT: api_networks.EndpointSettings,
}
PLACED = [option for option in OPTIONS if option.place]
PLAIN = [
    option
    for option in PLACED
    if option.document in (run_options.HOST_CONFIG, run_options.CONFIG) and not option.syntax
]
KINDS: dict[str, Any] = {
    "bool": True,
    "string": "x",
    "list": ["x"],
    "int": 1,
    "size": 64 << 20,
    "decimal": 500_000_000,
}


def test_the_documents_and_the_web_have_the_options_of_the_table() -> None:
    command = [sys.executable, PROJECT / "scripts" / "run-options", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("option", PLACED, ids=lambda option: option.name)
def test_the_place_of_an_option_is_a_member_of_the_request(option: Option) -> None:
    kind: Any = DOCUMENTS[option.document]
    for name in option.member.split("."):
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
        assert name in fields
        kind = fields[name]
        inner = [each for each in getattr(kind, "__args__", ()) if isinstance(each, type)]
        kind = next((each for each in inner if issubclass(each, msgspec.Struct)), kind)


@pytest.mark.parametrize("option", PLAIN, ids=lambda option: option.name)
def test_a_plain_option_is_the_member_that_its_row_names(option: Option) -> None:
    text = {"int": "1", "size": "64m", "decimal": "0.5", "bool": "true"}.get(option.kind, "x")
    parsed = parse(command_table.load("run"), [f"--{option.name}={text}", "image"])
    body = create_body.document(parsed)
    document = body["HostConfig"] if option.document == run_options.HOST_CONFIG else body
    for name in option.member.split("."):
        document = document[name]
    assert document == KINDS[option.kind]


def test_names_of_the_table_are_options() -> None:
    names = [option.name for option in OPTIONS]
    assert len(set(names)) == len(names)
    shown = [name for names in run_options.SUBJECTS.values() for name in names.split()]
    assert len(set(shown)) == len(shown)
    aliases = {option.alias_of for option in OPTIONS if option.alias_of}
    assert {*shown, *run_options.UPDATE_NAMES, *aliases} <= set(names)


def test_options_of_one_member_ask_for_the_same_right() -> None:
    rights: dict[str, str] = {}
    for option in PLACED:
        member = ".".join(option.place.split(".")[:2])
        assert rights.setdefault(member, option.right) == option.right, option.name


def test_the_web_reads_each_syntax_that_it_shows() -> None:
    static = PROJECT / "src" / "jaula" / "features" / "web" / "static"
    source = (static / "run_flags.js").read_text()
    readers = source.partition("const READERS = {")[2].partition("\n};")[0]
    writers = source.partition("const WRITERS = {")[2].partition("\n};")[0]
    read = set(re.findall(r"^  '?([a-z-]+)'?(?:[:(,])", readers + writers, re.MULTILINE))
    as_is = {"switch", "env", "network", "host-line", "items", "profile", "security"}
    shown = {
        run_options.BY_NAME[name].syntax
        for names in run_options.SUBJECTS.values()
        for name in names.split()
    }
    assert shown - {""} <= read | as_is


def test_a_gpu_and_a_device_of_cdi_are_two_requests() -> None:
    words = ["--device", "vendor.com/class=name", "--gpus", "all", "image"]
    host = create_body.document(parse(command_table.load("run"), words))["HostConfig"]
    assert [request["Driver"] for request in host["DeviceRequests"]] == ["", "cdi"]
