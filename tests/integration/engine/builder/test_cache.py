"""The build cache: keys depend on content, not on time; steps are kept until a prune."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from conftest import load_image
from harness import builds
from harness.engine import PrivateEngine


def files(busybox: str, *, content: str = "x", label: str = "a", command: str = "date") -> Any:
    text = (
        f"FROM {busybox}\nLABEL l={label}\nCOPY file other* /\nRUN {command} > /made\n"
        "RUN cat /file /made\nENV A=b\n"
    )
    return {"Dockerfile": text, "file": content}


@pytest.fixture
def image(busybox: str) -> str:
    return busybox


def test_a_second_build_runs_no_step_and_returns_the_same_image(
    engine: PrivateEngine, busybox: str
) -> None:
    first = builds.done(engine, files(busybox))
    second = builds.done(engine, files(busybox))
    assert first.image == second.image
    assert second.cached == 5
    later = builds.context(files(busybox), mtime=1_800_000_000)
    assert builds.build(engine, later).image == first.image


def test_a_changed_label_runs_no_program_again_but_changed_content_does(
    engine: PrivateEngine, busybox: str
) -> None:
    builds.done(engine, files(busybox))
    labelled = builds.done(engine, files(busybox, label="other"))
    assert labelled.text.count("Running in") == 0
    changed = builds.done(engine, files(busybox, content="y"))
    assert changed.text.count("Running in") == 2
    again = builds.done(engine, files(busybox), nocache=1)
    assert again.text.count("Running in") == 2


def test_a_mode_counts_and_a_line_break_in_the_dockerfile_does_not(
    engine: PrivateEngine, busybox: str
) -> None:
    plain = {"Dockerfile": f"FROM {busybox}\nCOPY f /f\nRUN echo a &&   echo b\n", "f": "1"}
    builds.done(engine, plain)
    spaced = {"Dockerfile": f"# words\nFROM {busybox}\n\nCOPY f \\\n  /f\nRUN echo a &&   echo b\n"}
    assert builds.done(engine, spaced | {"f": "1"}).cached == 2


def test_two_builds_with_one_epoch_are_identical(engine: PrivateEngine, busybox: str) -> None:
    text = (
        f"FROM {busybox}\nARG SOURCE_DATE_EPOCH\nCOPY f /d/f\nWORKDIR /w\n"
        "RUN mkdir m && date +%N > /dev/null && touch m/a && ln m/a m/b && rm /etc/group\n"
        "COPY --link f /linked\n"
    )
    made = []
    for mtime in (1_650_000_000, 1_660_000_000):
        context = builds.context({"Dockerfile": text, "f": "x"}, mtime=mtime)
        arguments = {"SOURCE_DATE_EPOCH": "1700000000"}
        built = builds.build(engine, context, nocache=1, buildargs=arguments)
        assert built.image, built
        made.append(built.image)
        assert engine.request("POST", "/build/prune?all=1").status == 200
        found = engine.request("GET", f"/images/{built.image}/json").json()
        assert found["Created"] == "2023-11-14T22:13:20Z"
        engine.request("DELETE", f"/images/{built.image}?force=1")
    assert made[0] == made[1]


def test_cached_steps_outlive_their_image_and_the_engine(
    new_engine: Callable[..., PrivateEngine],
) -> None:
    engine = new_engine()
    busybox = load_image(engine, "busybox")
    first = builds.done(engine, files(busybox), t="kept:1")
    assert engine.request("DELETE", "/images/kept:1?force=1").status == 200
    engine.kill()
    engine.start()
    again = builds.done(engine, files(busybox))
    assert again.image == first.image
    assert again.text.count("Running in") == 0


def test_prune_removes_unshared_steps_and_reports_the_freed_space(
    new_engine: Callable[..., PrivateEngine],
) -> None:
    engine = new_engine()
    busybox = load_image(engine, "busybox")
    command = "head -c 1000000 /dev/urandom"
    builds.done(engine, files(busybox, command=command), t="kept:1")
    text = f"FROM {busybox}\nRUN --mount=type=cache,target=/c head -c 5000 /dev/zero > /c/f\n"
    builds.done(engine, {"Dockerfile": text})

    def used() -> dict[str, dict[str, Any]]:
        found = engine.request("GET", "/v1.45/system/df").json()["BuildCache"]
        return {entry["ID"]: entry for entry in found}

    before = used()
    assert sum(e["Size"] for e in before.values() if e["Shared"]) > 2_000_000
    mounts = [e for e in before.values() if e["Type"] == "exec.cachemount"]
    assert [(e["Size"], e["Description"]) for e in mounts] == [(5000, "mount /c")]
    answer = engine.request("POST", "/build/prune").json()
    assert answer["SpaceReclaimed"] == sum(e["Size"] for e in before.values() if not e["Shared"])
    assert set(answer["CachesDeleted"]) == {i for i, e in before.items() if not e["Shared"]}
    assert all(entry["Shared"] for entry in used().values())
    assert builds.output(engine, "kept:1", "true") == ""
    engine.request("DELETE", "/images/kept:1?force=1")
    free = sum(e["Size"] for e in used().values())
    answer = engine.request("POST", "/build/prune?all=1").json()
    assert answer["SpaceReclaimed"] == free > 2_000_000
    assert not used()
    layers = {p.name for p in (engine.root / "lib" / "layers").iterdir()}
    found = engine.request("GET", f"/images/{busybox}/json").json()["RootFS"]["Layers"]
    assert layers == {layer.removeprefix("sha256:") for layer in found}


def test_prune_honours_filters_and_the_space_to_keep(
    new_engine: Callable[..., PrivateEngine],
) -> None:
    engine = new_engine()
    busybox = load_image(engine, "busybox")
    builds.done(engine, files(busybox, command="head -c 100000 /dev/zero"))
    removed = engine.request("DELETE", f"/images/{builds.done(engine, files(busybox)).image}")
    assert removed.status == 200
    kept = engine.request("POST", "/build/prune?all=1&keep-storage=100000000").json()
    assert kept == {"CachesDeleted": None, "SpaceReclaimed": 0}
    old = builds.query(all=1, filters={"until": ["24h"]})
    assert not engine.request("POST", f"/build/prune?{old}").json()["CachesDeleted"]
    wrong = builds.query(filters={"nonsense": ["1"]})
    reply = engine.request("POST", f"/build/prune?{wrong}")
    assert reply.status == 400
    assert "nonsense" in reply.json()["message"]


def test_cache_from_uses_the_steps_of_an_image(new_engine: Callable[..., PrivateEngine]) -> None:
    engine = new_engine()
    busybox = load_image(engine, "busybox")
    first = builds.done(engine, files(busybox), t="lender:1")
    engine.request("POST", "/build/prune?all=1")
    lent = builds.done(engine, files(busybox), cachefrom=["lender:1", "nobody/has:this"])
    assert lent.text.count("Running in") == 0
    assert builds.files_of(engine, lent.image) == builds.files_of(engine, first.image)
    other = builds.done(engine, files(busybox, content="y"), cachefrom=["lender:1"])
    assert other.text.count("Running in") == 2


def test_a_squashed_image_is_the_same_with_one_layer(engine: PrivateEngine, busybox: str) -> None:
    text = (
        f"FROM {busybox}\nRUN mkdir /d && echo 1 > /d/a && echo 2 > /b && ln /b /hard\n"
        "RUN rm /d/a /etc/group && rm -r /home && mkdir /home && echo h > /home/h\n"
        "RUN rm -r /d && echo file > /d && chown 3:4 /b\nENV A=b\n"
    )
    whole = builds.done(engine, {"Dockerfile": text})
    one = builds.done(engine, {"Dockerfile": text}, squash=1)
    layers, base = (
        engine.request("GET", f"/images/{name}/json").json()["RootFS"]["Layers"]
        for name in (one.image, busybox)
    )
    assert layers[:-1] == base
    assert builds.files_of(engine, one.image) == builds.files_of(engine, whole.image)
    assert "/etc/group" not in builds.files_of(engine, one.image)
    history = engine.request("GET", f"/images/{one.image}/history").json()
    assert history[0]["Comment"] == "squashed 3 layers"
    assert builds.output(engine, one.image, "stat", "-c", "%u:%g", "/b") == "3:4\n"
