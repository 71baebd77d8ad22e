"""Stages run in parallel if possible, and not at all if no stage needs them."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import pytest

from harness import builds
from harness.engine import PrivateEngine
from harness.registry import PASSWORD, USER, Registry, basic_auth

_MEET = (
    "RUN --mount=type=cache,id={id},target=/c touch /c/{mine};"
    " for i in $(seq 200); do [ -e /c/{other} ] && exit 0; sleep 0.05; done; exit 1\n"
)


def test_independent_stages_run_in_parallel(engine: PrivateEngine, busybox: str) -> None:
    id = f"meeting-{time.time_ns()}"
    text = (
        f"FROM {busybox} AS one\n{_MEET.format(id=id, mine='a', other='b')}"
        f"FROM {busybox} AS two\n{_MEET.format(id=id, mine='b', other='a')}"
        f"FROM {busybox}\nCOPY --from=one /etc/passwd /one\nCOPY --from=two /etc/passwd /two\n"
    )
    builds.done(engine, {"Dockerfile": text})


def test_messages_of_later_stages_follow_those_of_earlier_ones(
    engine: PrivateEngine, busybox: str
) -> None:
    text = (
        f"FROM {busybox} AS one\nRUN sleep 0.5; echo says-one\n"
        f"FROM {busybox} AS two\nRUN echo says-two\n"
        f"FROM {busybox}\nCOPY --from=one /etc/passwd /one\nCOPY --from=two /etc/passwd /two\n"
    )
    told = builds.done(engine, {"Dockerfile": text}, nocache=1).text
    order = [told.index(word) for word in ("\nsays-one", "\nsays-two", "COPY --from=one")]
    assert order == sorted(order)


def test_steps_clients_get_messages_of_all_stages_at_once(
    engine: PrivateEngine, busybox: str
) -> None:
    text = (
        f"FROM {busybox} AS slow\nRUN sleep 1; echo slow\n"
        f"FROM {busybox} AS quick\nRUN echo quick\n"
        "FROM scratch\nCOPY --from=slow /etc/passwd /a\nCOPY --from=quick /etc/passwd /b\n"
    )
    built = builds.done(engine, {"Dockerfile": text}, nocache=1, progress="steps")
    told = [m["stream"].strip() for m in built.messages if m.get("stream", "").strip()]
    assert told.index("quick") < told.index("slow")
    states = [m["jaula"] for m in built.messages if "state" in m.get("jaula", {})]
    assert {s["state"] for s in states} >= {"started", "done"}
    assert {s["stage"] for s in states} == {0, 1, 2}
    assert all(s["ms"] >= 0 and s["step"] > 0 for s in states)


def test_an_unused_stage_does_not_run(engine: PrivateEngine, busybox: str) -> None:
    text = f"FROM {busybox} AS unused\nRUN false\nFROM {busybox}\nRUN echo used\n"
    assert "used" in builds.done(engine, {"Dockerfile": text}, nocache=1).text


def test_a_target_ends_the_build(engine: PrivateEngine, busybox: str) -> None:
    text = f"FROM {busybox} AS first\nRUN echo first > /f\nFROM first AS second\nRUN false\n"
    built = builds.done(engine, {"Dockerfile": text}, target="first")
    assert builds.output(engine, built.image, "cat", "/f") == "first\n"
    assert "target" in builds.build(engine, {"Dockerfile": text}, target="third").error


def test_files_come_from_stages_by_name_number_and_from_images(
    engine: PrivateEngine, busybox: str
) -> None:
    text = (
        f"FROM {busybox}\nRUN echo zero > /file && chown 5:6 /file && chmod 640 /file\n"
        "FROM scratch AS named\nCOPY --from=0 /file /zero\n"
        f"FROM {busybox}\n"
        "COPY --from=named /zero /a/\n"
        f"COPY --from={busybox} /etc/passwd /b/\n"
        "COPY --from=named --chown=7:root --chmod=u=rw,go= --link /zero /c/\n"
    )
    built = builds.done(engine, {"Dockerfile": text})
    told = builds.output(
        engine, built.image, "stat", "-c", "%u:%g %a %s", "/a/zero", "/b/passwd", "/c/zero"
    )
    assert told.splitlines()[0] == "5:6 640 5"
    assert told.splitlines()[2] == "7:0 600 5"


@pytest.mark.parametrize("link", ["", "--link "])
def test_a_copy_follows_links_of_the_image_but_a_linked_one_knows_none(
    engine: PrivateEngine, busybox: str, link: str
) -> None:
    text = f"FROM {busybox}\nRUN mkdir /real && ln -s real /way\nCOPY {link}a /way/\n"
    built = builds.done(engine, {"Dockerfile": text, "a": "x"})
    told = builds.output(engine, built.image, "sh", "-c", "ls /real; readlink /way || true")
    assert told == ("a\nreal\n" if not link else "")


def test_a_failed_stage_ends_the_others(engine: PrivateEngine, busybox: str) -> None:
    text = (
        f"FROM {busybox} AS slow\nRUN sleep 60\n"
        f"FROM {busybox} AS wrong\nRUN echo so; exit 7\n"
        f"FROM {busybox}\nCOPY --from=slow / /a\nCOPY --from=wrong / /b\n"
    )
    began = time.monotonic()
    built = builds.build(engine, {"Dockerfile": text}, nocache=1)
    assert time.monotonic() - began < 20
    assert "returned a non-zero code: 7" in built.error
    assert built.messages[-1]["errorDetail"]["code"] == 7


def test_a_base_comes_from_a_registry_with_the_builds_credentials(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    with Registry(tmp_path, auth=basic_auth(tmp_path)) as registry:
        name = f"{registry.name}/base:1"
        login = {"username": USER, "password": PASSWORD, "serveraddress": registry.name}
        header = base64.urlsafe_b64encode(json.dumps(login).encode()).decode()
        engine.request("POST", f"/images/{busybox}/tag?repo={registry.name}/base&tag=1")
        pushed = engine.request(
            "POST", f"/images/{registry.name}/base/push?tag=1", headers={"X-Registry-Auth": header}
        )
        assert b"error" not in pushed.body, pushed
        engine.request("DELETE", f"/images/{name}")
        body = builds.context({"Dockerfile": f"FROM {name}\nRUN echo pulled\n"})
        logins = base64.urlsafe_b64encode(json.dumps({registry.name: login}).encode()).decode()
        for headers, status in (({}, False), ({"X-Registry-Config": logins}, True)):
            reply = engine.request("POST", "/build?pull=1&nocache=1", body, headers=headers)
            assert (b"pulled\\n" in reply.body.replace(b"echo pulled", b"")) is status, reply
        assert (
            f"cannot pull image {name}"
            in engine.request("POST", "/build?pull=1", body).body.decode()
        )
        engine.request("DELETE", f"/images/{name}?force=1")
