"""The effect of instructions on an image."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness import builds
from harness.engine import PrivateEngine


def image(engine: PrivateEngine, id: str) -> dict[str, Any]:
    found: dict[str, Any] = engine.request("GET", f"/images/{id}/json").json()
    return found


def history(engine: PrivateEngine, id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = engine.request("GET", f"/images/{id}/history").json()
    return found


def test_a_run_makes_a_layer_and_a_change_of_the_configuration_none(
    engine: PrivateEngine, busybox: str
) -> None:
    text = f"FROM {busybox}\nENV A=b\nRUN echo $A > /made\nLABEL x=y\n"
    built = builds.done(engine, {"Dockerfile": text})
    base, found = image(engine, busybox), image(engine, built.image)
    assert len(found["RootFS"]["Layers"]) == len(base["RootFS"]["Layers"]) + 1
    assert "A=b" in found["Config"]["Env"]
    assert found["Config"]["Labels"] == {"x": "y"}
    assert builds.output(engine, built.image, "cat", "/made") == "b\n"
    steps = [(step["CreatedBy"], step["Size"]) for step in history(engine, built.image)[:3]]
    assert steps == [("LABEL x=y", 0), ("RUN /bin/sh -c echo $A > /made", 2), ("ENV A=b", 0)]


def test_a_run_that_changes_nothing_makes_no_layer(engine: PrivateEngine, busybox: str) -> None:
    built = builds.done(engine, {"Dockerfile": f"FROM {busybox}\nRUN true\n"})
    layers = image(engine, built.image)["RootFS"]["Layers"]
    assert layers == image(engine, busybox)["RootFS"]["Layers"]


def test_deleted_and_replaced_files_are_so_in_the_image(
    engine: PrivateEngine, busybox: str
) -> None:
    text = (
        f"FROM {busybox}\n"
        "RUN mkdir -p /d/sub && echo 1 > /d/one && echo 2 > /d/sub/two && ln /d/one /d/hard"
        " && ln -s one /d/soft && chmod 4755 /d/one && chown 12:34 /d/sub\n"
        "RUN rm /d/sub/two && rm -r /d/sub && mkdir /d/sub && echo 3 > /d/sub/three\n"
    )
    built = builds.done(engine, {"Dockerfile": text})
    told = builds.output(
        engine, built.image, "sh", "-c", "ls /d /d/sub; stat -c %a:%h /d/one; readlink /d/soft"
    )
    assert told.split() == [
        *("/d:", "hard", "one", "soft", "sub"),
        *("/d/sub:", "three", "4755:2", "one"),
    ]


@pytest.mark.parametrize("program", ["docker", "jaula"])
def test_layers_can_be_saved_and_loaded_again(
    engine: PrivateEngine, busybox: str, program: str
) -> None:
    text = f"FROM {busybox}\nRUN rm -r /home && mkdir /home && touch /home/x && rm /etc/group\n"
    built = builds.done(engine, {"Dockerfile": text}, t="saved:1")
    archive = engine.root / "saved.tar"
    try:
        assert engine.cli(program, "save", "-o", str(archive), "saved:1").returncode == 0
        assert engine.cli(program, "rmi", "-f", "saved:1").returncode == 0
        assert engine.request("POST", "/build/prune?all=1").status == 200
        assert engine.cli(program, "load", "-i", str(archive)).returncode == 0
        assert image(engine, "saved:1")["Id"] == built.image
        shown = builds.output(engine, "saved:1", "sh", "-c", "ls /home; ls /etc/group || true")
        assert shown == "x\n"
    finally:
        archive.unlink(missing_ok=True)
        engine.request("DELETE", "/images/saved:1?force=1")


def test_a_working_directory_is_created_for_the_user(engine: PrivateEngine, busybox: str) -> None:
    text = f"FROM {busybox}\nUSER 12:34\nWORKDIR /a/b\nWORKDIR c\nRUN touch mine && pwd\n"
    built = builds.done(engine, {"Dockerfile": text})
    assert "/a/b/c\n" in built.text
    assert builds.output(engine, built.image, "stat", "-c", "%u:%g", "/a/b/c/mine") == "12:34\n"


def test_arguments_are_seen_by_runs_and_proxies_are_not_in_the_history(
    engine: PrivateEngine, busybox: str
) -> None:
    text = f"FROM {busybox}\nARG A=default\nRUN echo $A $HTTP_PROXY > /told\n"
    arguments = {"A": "given", "HTTP_PROXY": "http://user:password@proxy"}
    built = builds.done(engine, {"Dockerfile": text}, buildargs=arguments)
    told = builds.output(engine, built.image, "cat", "/told")
    assert told == "given http://user:password@proxy\n"
    assert "password" not in json.dumps(history(engine, built.image))
    assert "|1 A=given" in history(engine, built.image)[0]["CreatedBy"]


def test_a_shell_and_here_documents(engine: PrivateEngine, busybox: str) -> None:
    text = (
        f"FROM {busybox}\n"
        'SHELL ["/bin/sh", "-euc"]\n'
        "RUN <<EOF\necho first > /a\necho second > /b\nEOF\n"
        "RUN <<EOF\n#!/bin/cat\nread by cat\nEOF\n"
        "COPY <<one <<two /made/\nsays one\none\nsays two\ntwo\n"
    )
    built = builds.done(engine, {"Dockerfile": text})
    assert "read by cat\n" in built.text
    told = builds.output(engine, built.image, "cat", "/a", "/b", "/made/one", "/made/two")
    assert told == "first\nsecond\nsays one\nsays two\n"


def test_triggers_of_the_base_run_first_and_are_removed(
    engine: PrivateEngine, busybox: str
) -> None:
    text = f"FROM {busybox}\nONBUILD COPY given /given\nONBUILD RUN cat /given > /seen\n"
    builds.done(engine, {"Dockerfile": text}, t="triggers:1")
    try:
        built = builds.done(
            engine, {"Dockerfile": "FROM triggers:1\nRUN cat /seen\n", "given": "from here\n"}
        )
        assert "from here" in built.text
        assert not image(engine, built.image)["Config"].get("OnBuild")
    finally:
        engine.request("DELETE", "/images/triggers:1?force=1")


def test_the_base_s_command_goes_with_a_new_entry_point(
    engine: PrivateEngine, busybox: str
) -> None:
    first = builds.done(engine, {"Dockerfile": f'FROM {busybox}\nCMD ["a"]\n'}, t="command:1")
    try:
        text = 'FROM command:1\nENTRYPOINT ["b"]\n'
        config = image(engine, builds.done(engine, {"Dockerfile": text}).image)["Config"]
        assert (config["Entrypoint"], config.get("Cmd")) == (["b"], None)
        assert image(engine, first.image)["Config"]["Cmd"] == ["a"]
    finally:
        engine.request("DELETE", "/images/command:1?force=1")


def test_from_nothing_with_files_only(engine: PrivateEngine) -> None:
    text = 'FROM scratch\nCOPY a /dir/\nCOPY <<b /\nx\nb\nENTRYPOINT ["/dir/a"]\n'
    built = builds.done(engine, {"Dockerfile": text, "a": "content"})
    found = builds.files_of(engine, built.image)
    assert found["/dir/a"] == b"content"
    assert found["/b"] == b"x\n"


def test_mount_points_and_the_engine_s_files_are_in_no_layer(
    engine: PrivateEngine, busybox: str
) -> None:
    text = f"FROM {busybox}\nRUN --mount=type=tmpfs,target=/new/place echo > /new/place/x\n"
    built = builds.done(engine, {"Dockerfile": text})
    layers = image(engine, built.image)["RootFS"]["Layers"]
    assert layers == image(engine, busybox)["RootFS"]["Layers"]


def test_limits_of_a_build_are_those_of_its_steps(engine: PrivateEngine, busybox: str) -> None:
    text = f"FROM {busybox}\nRUN ulimit -n; df -k /dev/shm | tail -1; cat /etc/hosts\n"
    limits = [{"Name": "nofile", "Soft": 123, "Hard": 123}]
    built = builds.done(
        engine, {"Dockerfile": text}, ulimits=limits, shmsize=1 << 20, extrahosts="name:1.2.3.4"
    )
    assert "123\n" in built.text
    assert " 1024 " in built.text
    assert "1.2.3.4\tname" in built.text


def test_labels_names_and_quiet(engine: PrivateEngine, busybox: str) -> None:
    files = {"Dockerfile": f"FROM {busybox}\n"}
    reply = builds.build(engine, files, q=1, labels={"a": "b"}, t="labelled:1")
    try:
        id = reply.text.strip()
        assert reply.messages == [{"stream": f"{id}\n"}]
        assert image(engine, "labelled:1")["Id"] == id
        assert image(engine, id)["Config"]["Labels"] == {"a": "b"}
    finally:
        engine.request("DELETE", "/images/labelled:1?force=1")
