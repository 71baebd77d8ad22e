"""``RUN --mount``: trees, caches, tmpfs, secrets and agents."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from harness import builds
from harness.engine import PrivateEngine

SECRET = b"the-secret-of-the-test-58c1"


def unique(word: str) -> str:
    return f"{word}-{time.time_ns()}"


def test_a_bind_mounts_the_context_and_drops_writes(engine: PrivateEngine, busybox: str) -> None:
    text = (
        f"FROM {busybox}\n"
        "RUN --mount=target=/ctx,source=sub cat /ctx/a && ! touch /ctx/b\n"
        "RUN --mount=target=/ctx,rw echo changed > /ctx/sub/a && cat /ctx/sub/a\n"
        "RUN --mount=target=/ctx cat /ctx/sub/a > /result\n"
    )
    built = builds.done(engine, {"Dockerfile": text, "sub/a": "content\n"})
    assert "content\n" in built.text and "changed\n" in built.text
    assert builds.output(engine, built.image, "cat", "/result") == "content\n"


def test_the_cache_key_depends_on_the_content_of_a_bind(
    engine: PrivateEngine, busybox: str
) -> None:
    text = f"FROM {busybox}\nRUN --mount=target=/ctx,source=used cat /ctx > /made\n"
    builds.done(engine, {"Dockerfile": text, "used": "1", "unused": "1"})
    assert builds.done(engine, {"Dockerfile": text, "used": "1", "unused": "2"}).cached == 1
    assert builds.done(engine, {"Dockerfile": text, "used": "2", "unused": "2"}).cached == 0


def test_a_bind_of_a_stage_has_its_owners_and_a_file_can_be_one(
    engine: PrivateEngine, busybox: str
) -> None:
    text = (
        f"FROM {busybox} AS from\nRUN echo x > /one && chown 7:8 /one && chmod 600 /one\n"
        f"FROM {busybox}\nUSER 7:8\n"
        "RUN --mount=from=from,source=/one,target=/file cat /file; stat -c %u:%g /file\n"
        "RUN --mount=from=from,target=/whole ls /whole; cat /whole/one\n"
    )
    told = builds.done(engine, {"Dockerfile": text}, nocache=1).text
    assert "x\n7:8\n" in told


def test_a_cache_persists_and_is_in_no_layer(engine: PrivateEngine, busybox: str) -> None:
    id = unique("cache")
    mount = f"--mount=type=cache,id={id},target=/c,mode=0700,uid=5,gid=6"
    text = f"FROM {busybox}\nRUN {mount} echo x >> /c/log; wc -l < /c/log; stat -c %a:%u:%g /c\n"
    first = builds.done(engine, {"Dockerfile": text})
    assert "1\n700:5:6\n" in first.text
    second = builds.done(engine, {"Dockerfile": text}, nocache=1)
    assert "2\n700:5:6\n" in second.text
    assert "/c/log" not in builds.files_of(engine, second.image)


def test_a_cache_starts_with_the_content_of_its_source(engine: PrivateEngine, busybox: str) -> None:
    mount = f"--mount=type=cache,id={unique('seed')},target=/c,from=seed,source=/s"
    text = f"FROM {busybox} AS seed\nRUN mkdir /s && echo seeded > /s/f\nFROM {busybox}\n"
    assert "seeded" in builds.done(engine, {"Dockerfile": f"{text}RUN {mount} cat /c/f\n"}).text


@pytest.mark.parametrize(
    ("sharing", "together"), [("shared", True), ("locked", False), ("private", False)]
)
def test_caches_are_shared_by_their_sharing_mode(
    engine: PrivateEngine, busybox: str, sharing: str, together: bool
) -> None:
    mount = f"--mount=type=cache,id={unique('share')},target=/c,sharing={sharing}"
    step = f"RUN {mount} touch /c/$$-$(cat /name); sleep 1; ls /c | wc -l; rm -f /c/*"
    text = "".join(
        f"FROM {busybox} AS {name}\nRUN echo {name} > /name\n{step}\n" for name in ("a", "b")
    )
    text += f"FROM {busybox}\nCOPY --from=a /name /a\nCOPY --from=b /name /b\n"
    told = builds.done(engine, {"Dockerfile": text}).text
    counts = [line for line in told.splitlines() if line.isdigit()]
    assert (counts != ["1", "1"]) is together


def test_a_file_system_in_memory_has_its_size(engine: PrivateEngine, busybox: str) -> None:
    mount = "--mount=type=tmpfs,target=/t,size=65536"
    text = f"FROM {busybox}\nRUN {mount} df -k /t | tail -1; ! head -c 200000 /dev/zero > /t/f\n"
    assert " 64 " in builds.done(engine, {"Dockerfile": text}, nocache=1).text


def test_a_secret_is_a_file_or_a_variable_and_is_stored_nowhere(
    engine: PrivateEngine, busybox: str
) -> None:
    text = (
        f"FROM {busybox}\n"
        "RUN --mount=type=secret,id=one,required wc -c < /run/secrets/one;"
        " stat -c %a:%u /run/secrets/one\n"
        "RUN --mount=type=secret,id=one,target=/s,uid=5,mode=0440 stat -c %a:%u /s; sleep 0.5\n"
        "RUN --mount=type=secret,id=one,env=ONE echo ${#ONE}; sleep 0.5; ls /run/secrets || true\n"
    )
    held = _held_while(engine, {"Dockerfile": text})
    assert f"{len(SECRET)}\n400:0\n" in held.text
    assert "440:5\n" in held.text
    assert f"{len(SECRET)}\n" in held.text.partition("Step 4/4")[2]


def _held_while(engine: PrivateEngine, files: builds.Files) -> builds.Built:
    with builds.Session(engine, secrets={"one": SECRET}) as session:
        built = builds.done(engine, files, session=session.id, nocache=1)
    assert ("secret", "one") in session.asked
    found = subprocess.run(
        ["grep", "-rlaF", SECRET.decode(), str(engine.root), str(engine.run)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == ""
    return built


def test_a_required_secret_that_is_missing(engine: PrivateEngine, busybox: str) -> None:
    text = f"FROM {busybox}\nRUN --mount=type=secret,id=x{{}} ls /run/secrets/x || echo none\n"
    optional, required = text.format(""), text.format(",required=true")
    assert "none" in builds.done(engine, {"Dockerfile": optional}, nocache=1).text
    assert "'x'" in builds.build(engine, {"Dockerfile": required}).error
    with builds.Session(engine) as session:
        built = builds.build(engine, {"Dockerfile": required}, session=session.id)
    assert "secret 'x' is required" in built.error


_CLIENT = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(void) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    char answer[100];
    strcpy(to.sun_path, getenv("SSH_AUTH_SOCK"));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof to)) return perror("connect"), 1;
    if (write(fd, "question", 8) != 8) return 2;
    ssize_t size = read(fd, answer, sizeof answer);
    return size > 0 ? printf("%.*s\\n", (int)size, answer) < 0 : 3;
}
"""


@pytest.mark.needs("gcc")
def test_a_socket_leads_to_the_ssh_agent(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    source, program = tmp_path / "client.c", tmp_path / "client"
    source.write_text(_CLIENT)
    subprocess.run(["gcc", "-static", "-o", str(program), str(source)], check=True)
    text = (
        f"FROM {busybox}\nCOPY --chmod=755 client /client\nUSER 9:9\n"
        "RUN --mount=type=ssh,uid=9,required /client; stat -c %a $SSH_AUTH_SOCK\n"
        "RUN ! /client; ! ls /run/buildkit\n"
    )
    files = {"Dockerfile": text, "client": program.read_bytes()}
    with builds.Session(engine, agent=lambda data: b"answer to " + data) as session:
        built = builds.done(engine, files, session=session.id, nocache=1)
    assert "answer to question\n600\n" in built.text
    assert session.asked == [("ssh", "default")]


def test_named_contexts_come_over_the_session_or_are_images(
    engine: PrivateEngine, busybox: str
) -> None:
    text = (
        f"FROM {busybox}\nCOPY --from=more /a /a\nCOPY --from=other /etc/passwd /b\n"
        "RUN --mount=from=more,target=/m cat /m/a\n"
    )
    contexts = {"more": "", "other": f"docker-image://{busybox}"}
    more = builds.context({"a": "from the session\n"})
    with builds.Session(engine, contexts={"more": more}) as session:
        built = builds.done(
            engine, {"Dockerfile": text}, session=session.id, buildcontexts=contexts
        )
    assert "from the session" in built.text
    assert session.asked == [("context", "more")]
    assert b"root:" in builds.files_of(engine, built.image)["/b"]


def test_a_session_belongs_to_its_caller_and_has_a_random_id(
    engine: PrivateEngine, busybox: str
) -> None:
    files = {"Dockerfile": f"FROM {busybox}\n"}
    assert "25 to 64" in builds.build(engine, files, session="1").error
    assert "no such session" in builds.build(engine, files, session="0" * 32).error
    reply = engine.request("POST", f"/build/session?session={'0' * 32}")
    assert reply.status == 400
