"""Apply instructions to a configuration, in a build and with ``--change``."""

from __future__ import annotations

import pytest

from jaula.errors import InvalidRequest
from jaula.images.dockerfile.apply_instructions import apply, change, sets_command
from jaula.images.dockerfile.ast import Instruction
from jaula.images.dockerfile.dockerfile_error import DockerfileError
from jaula.images.dockerfile.dockerfile_parser import parse_one
from jaula.spec.image_documents import (
    Healthcheck,
    ImageConfig,
)

BASE = ImageConfig(
    env=("PATH=/bin",), cmd=("sh",), working_dir="/srv", labels={"a": "1"}, shell=("/bin/ash", "-c")
)


def one(text: str) -> Instruction:
    return parse_one(text)


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("CMD a b", "cmd", ("/bin/ash", "-c", "a b")),
        ('CMD ["a"]', "cmd", ("a",)),
        ("CMD []", "cmd", ()),
        ("ENTRYPOINT a b", "entrypoint", ("/bin/ash", "-c", "a b")),
        ("ENV PATH=/x A=1", "env", ("PATH=/x", "A=1")),
        ("LABEL b=2", "labels", {"a": "1", "b": "2"}),
        (
            "EXPOSE 80 5-6/UDP 127.0.0.1:8080:81",
            "exposed_ports",
            {
                "80/tcp": {},
                "5/udp": {},
                "6/udp": {},
                "81/tcp": {},
            },
        ),
        ("VOLUME /a /b", "volumes", {"/a": {}, "/b": {}}),
        ("WORKDIR sub/../x/", "working_dir", "/srv/x"),
        ("WORKDIR ../../..", "working_dir", "/"),
        ("WORKDIR //a//b", "working_dir", "/a/b"),
        ("USER a:b", "user", "a:b"),
        ("STOPSIGNAL 9", "stop_signal", "9"),
        ('SHELL ["a"]', "shell", ("a",)),
        ("ONBUILD RUN a", "on_build", ("RUN a",)),
        ("HEALTHCHECK NONE", "healthcheck", Healthcheck(("NONE",))),
    ],
)
def test_an_instruction_changes_its_field(text: str, field: str, value: object) -> None:
    changed = change(BASE, one(text))
    assert getattr(changed, field) == value


@pytest.mark.parametrize("text", ["RUN x", "COPY a b", "ADD a b", "ARG a=b", "MAINTAINER x"])
def test_instructions_about_files_do_not_change_the_configuration(text: str) -> None:
    assert change(BASE, one(text)) is BASE


def test_an_entrypoint_clears_the_command_of_the_base() -> None:
    assert change(BASE, one('ENTRYPOINT ["x"]')).cmd is None
    assert change(BASE, one('ENTRYPOINT ["x"]'), own_command=True).cmd == ("sh",)
    assert apply(BASE, ["CMD a", "ENTRYPOINT b"]).cmd == ("/bin/ash", "-c", "a")
    assert apply(BASE, ["ENTRYPOINT b", "CMD a"]).cmd == ("/bin/ash", "-c", "a")


# Of `docker image inspect` with dockerd 26, for `FROM busybox` and the lines.
DOCKER_COMMANDS = [
    ("CMD []", (), None),
    ('CMD [""]', ("",), ("",)),
    ("CMD", ("/bin/sh", "-c"), ("/bin/sh", "-c", "")),
    ("CMD a", ("/bin/sh", "-c", "a"), ("/bin/sh", "-c", "a")),
    ("CMD []\nENTRYPOINT []", None, None),
    ("CMD []\nENTRYPOINT x", None, None),
    ("ENTRYPOINT x\nCMD []", (), None),
    ("CMD a\nENTRYPOINT x", ("/bin/sh", "-c", "a"), ("/bin/sh", "-c", "a")),
    ('SHELL [""]\nCMD x', ("", "x"), ("", "x")),
]


@pytest.mark.parametrize(("lines", "classic", "buildkit"), DOCKER_COMMANDS)
def test_a_command_is_stored_as_by_the_builder_that_the_client_uses(
    lines: str, classic: tuple[str, ...] | None, buildkit: tuple[str, ...] | None
) -> None:
    for kit, expected in ((False, classic), (True, buildkit)):
        config, own_command = ImageConfig(cmd=("sh",)), False
        for line in lines.splitlines():
            instruction = one(line)
            config = change(config, instruction, own_command=own_command, buildkit=kit)
            own_command = own_command or sets_command(instruction)
        assert config.cmd == expected
        assert config.args_escaped == kit


@pytest.mark.parametrize(
    ("line", "classic", "buildkit"),
    [
        ("ENTRYPOINT []", (), ()),
        ("ENTRYPOINT", (), ("/bin/sh", "-c", "")),
        ('ENTRYPOINT [""]', ("",), ("",)),
    ],
)
def test_an_entrypoint_is_stored_as_by_the_builder_that_the_client_uses(
    line: str, classic: tuple[str, ...], buildkit: tuple[str, ...]
) -> None:
    assert change(ImageConfig(), one(line)).entrypoint == classic
    assert change(ImageConfig(), one(line), buildkit=True).entrypoint == buildkit


def test_changes_are_in_the_whole_language() -> None:
    changed = apply(
        BASE,
        [
            "ENV A='x y' \\\n  B=${PATH%in}",
            "LABEL c=$A",
            'SHELL ["/bin/bash", "-c"]',
            "CMD run",
            "HEALTHCHECK --interval=5s CMD true",
            "ONBUILD RUN <<EOF\nx\nEOF",
        ],
    )
    assert changed.env == ("PATH=/bin", "A=x y", "B=/b")
    assert changed.labels == {"a": "1", "c": "x y"}
    assert changed.cmd == ("/bin/bash", "-c", "run")
    assert changed.healthcheck == Healthcheck(("CMD-SHELL", "true"), 5 * 10**9)
    assert changed.on_build == ("RUN <<EOF\nx\nEOF",)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("RUN x", "RUN is not a valid change command (one of CMD, ENTRYPOINT, ENV, EXPOSE,"),
        ("FROM x", "FROM is not a valid change command"),
        ("COPY a b", "COPY is not a valid change command"),
        ("FOO x", "unknown instruction: FOO"),
        ("", "expected one instruction, got 0"),
        ("USER a\nUSER b", "expected one instruction, got 2"),
        ("EXPOSE x", "invalid containerPort: x"),
        ("ENV a=${b:?c}", 'failed to process "${b:?c}": b: c'),
    ],
)
def test_an_invalid_change_is_named(line: str, reason: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        apply(BASE, [line])
    assert not isinstance(caught.value, DockerfileError)
    assert caught.value.message.startswith(f"--change {line!r}: {reason}".replace("\\n", "\ufffd"))
    assert "\n" not in caught.value.message


def test_changes_are_applied_in_order() -> None:
    config = apply(
        ImageConfig(env=("PATH=/bin", "A=1")),
        [
            'CMD ["a","b c"]',
            "entrypoint echo hi",
            "ENV A=2 B='x y'",
            "ENV C one two",
            "EXPOSE 80 90-91/UDP",
            "LABEL k=v",
            "STOPSIGNAL SIGINT",
            "USER nobody",
            'VOLUME ["/data"]',
            "WORKDIR /srv",
            "WORKDIR sub",
        ],
    )
    assert config == ImageConfig(
        cmd=("a", "b c"),
        entrypoint=("/bin/sh", "-c", "echo hi"),
        env=("PATH=/bin", "A=2", "B=x y", "C=one two"),
        exposed_ports={"80/tcp": {}, "90/udp": {}, "91/udp": {}},
        labels={"k": "v"},
        stop_signal="SIGINT",
        user="nobody",
        volumes={"/data": {}},
        working_dir="/srv/sub",
    )


@pytest.mark.parametrize(
    "line",
    ["", "RUN x", "ENV", "ENV A", "ENV 'a", "LABEL a=b c", "EXPOSE 0", "EXPOSE 9-1", "USER a\nb"],
)
def test_an_invalid_change_is_refused(line: str) -> None:
    with pytest.raises(InvalidRequest):
        apply(ImageConfig(), [line])
