"""I15: an archive to restore from is hostile input.

Output of ``save`` and ``export`` is read by ``load``, ``import`` and ``PUT archive``, and may have
been changed meanwhile. A tree next to the engine's root, the mounts and the files of the engine
stay unchanged. The answer is one error in time, or an image or container with the content of the
archive only. I11 tests the content of layers; this module tests the rest of the archive.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import stat
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import containers, hostile_archives
from harness.engine import PrivateEngine
from harness.hostile_archives import BITING, HARMLESS, MIB, REFUSED, SECONDS, SECRET, UP, load
from harness.layers import Member, digest, image, layer
from jaula.config import Paths
from jaula.errors import InvalidRequest
from jaula.images.archive import members as archive_members
from jaula.images.archive.load_archive import load as load_into
from jaula.images.store.image_store import ImageStore
from jaula.spec import image_documents
from jaula.storage.layers.layer_store import LayerStore

Files = dict[str, bytes]
NOWHERE = "sha256:" + "0" * 64
TAR = {"Content-Type": "x-tar"}


@pytest.fixture
def canary(engine: PrivateEngine, busybox: str) -> Iterator[Path]:
    """Yield a tree next to the engine's root; it, the engine's files and mounts must not change."""
    with hostile_archives.canary_tree(engine, busybox) as tree:
        yield tree


@pytest.fixture(scope="session")
def saved(engine: PrivateEngine) -> Files:
    """Return the files of an archive of ``save``, of an image with two layers."""
    parts = [layer([("etc/one", "1")]), layer([("etc/two", "2")])]
    assert load(engine, image("saved:1", *((part, digest(part)) for part in parts))) == ""
    reply = engine.request("GET", "/images/saved:1/get")
    assert reply.status == 200
    engine.request("DELETE", "/images/saved:1?force=1")
    result = {}
    with tarfile.open(fileobj=io.BytesIO(reply.body)) as tar:
        for member in tar:
            if (file := tar.extractfile(member)) is not None:
                result[member.name] = file.read()
    return result


def listed(files: Files, **change: object) -> None:
    """Change the one image of ``manifest.json``."""
    (entry,) = json.loads(files["manifest.json"])
    files["manifest.json"] = json.dumps([entry | change]).encode()


def layers_of(files: Files) -> list[str]:
    names: list[str] = json.loads(files["manifest.json"])[0]["Layers"]
    return names


def config_of(files: Files) -> str:
    return str(json.loads(files["manifest.json"])[0]["Config"])


def reconfigured(files: Files, **change: object) -> None:
    """Change the image's config, and its path accordingly."""
    document = json.loads(files.pop(config_of(files)))
    data = json.dumps(document | change).encode()
    files[f"blobs/sha256/{digest(data)[7:]}"] = data
    listed(files, Config=f"blobs/sha256/{digest(data)[7:]}")


def relaid(files: Files, **change: object) -> None:
    """Remove ``manifest.json``: an OCI layout; change members of the manifest's descriptor."""
    del files["manifest.json"]
    index = json.loads(files["index.json"])
    index["manifests"][0] |= change
    files["index.json"] = json.dumps(index).encode()


def remade(files: Files, edit: Callable[[dict[str, object]], None]) -> None:
    """Return an OCI layout with another manifest, whose digest in the index is right."""
    index = json.loads(files["index.json"])
    descriptor = index["manifests"][0]
    manifest = json.loads(files.pop(f"blobs/sha256/{descriptor['digest'][7:]}"))
    edit(manifest)
    data = json.dumps(manifest).encode()
    files[f"blobs/sha256/{digest(data)[7:]}"] = data
    relaid(files, digest=digest(data), size=len(data))


def spoilt(files: Files, name: str) -> None:
    """Replace content by other content of the same length under the same name."""
    files[name] = files[name][:-1] + bytes([files[name][-1] ^ 1])


def moved(files: Files, name: str) -> str:
    """Remove a file and return its name."""
    del files[name]
    return name


def taken(files: Files, prefix: str) -> list[Member]:
    """Return files of a layout as members that come later."""
    return [(name, files.pop(name)) for name in [*files] if name.startswith(prefix)]


def first_layer(manifest: dict[str, object], **change: object) -> None:
    layers: list[dict[str, object]] = manifest["layers"]  # type: ignore[assignment]
    layers[0] |= change


Change = Callable[[Files], object]
"""Edits the files; a list that it gives are members that follow them."""


def tampered(files: Files, change: Change, tree: Path) -> bytes:
    """Return the archive with a change.

    ``CANARY`` in a name or document is the path of the tree.
    """
    copy = dict(files)
    more = change(copy)
    place = str(tree)[1:].encode()
    members = [(name, data.replace(b"CANARY", place)) for name, data in copy.items()]
    return layer([*members, *(more if isinstance(more, list) else [])], tree)


TAMPERED: dict[str, tuple[str, Change]] = {
    # the list names files outside
    "a configuration outside": ("CVE-2014-9356", lambda f: listed(f, Config=f"{UP}CANARY/secret")),
    "a configuration of the host's": (
        "CVE-2014-9356",
        lambda f: listed(f, Config="/CANARY/secret"),
    ),
    "a layer outside": ("CVE-2014-9356", lambda f: listed(f, Layers=[f"{UP}CANARY/secret"] * 2)),
    "a layer of the host's": ("CVE-2014-9356", lambda f: listed(f, Layers=["/CANARY/secret"] * 2)),
    "a layer that is a directory": ("", lambda f: listed(f, Layers=["blobs", "blobs/sha256"])),
    # members other than files
    "a layer by a link out": (
        "CVE-2014-6407",
        lambda f: [(moved(f, layers_of(f)[0]), "link", "/CANARY/secret")],
    ),
    "a layer by a climbing link": (
        "CVE-2014-6407",
        lambda f: [(moved(f, layers_of(f)[0]), "link", f"{UP}CANARY/secret")],
    ),
    "a layer by a hard link out": (
        "CVE-2014-6407",
        lambda f: [(moved(f, layers_of(f)[0]), "hard", f"{UP}CANARY/secret")],
    ),
    "a configuration by a link out": (
        "CVE-2014-6407",
        lambda f: [(moved(f, config_of(f)), "link", "/CANARY/secret")],
    ),
    "a list by a link out": (
        "CVE-2024-8676",
        lambda f: [(moved(f, "manifest.json"), "link", "/CANARY/secret"), ("index.json", "[]")],
    ),
    "a link that leads to itself": (
        "",
        lambda f: [(moved(f, layers_of(f)[0]), "link", layers_of(f)[0].rpartition("/")[2])],
    ),
    "lists that are fifos": (
        "",
        lambda f: [(moved(f, name), "fifo") for name in ("manifest.json", "index.json")],
    ),
    "a layer that is the disk": (
        "CVE-2024-8676",
        lambda f: [(moved(f, layers_of(f)[0]), "block", {"devmajor": 8})],
    ),
    # the same name twice
    "a second list, which names the host's": (
        "CVE-2021-41190",
        lambda f: [("manifest.json", f["manifest.json"].replace(b"blobs/", b"/CANARY/"))],
    ),
    "a second layer of the name": ("CVE-2021-41190", lambda f: [(layers_of(f)[0], "evil")]),
    "a second configuration of the name": (
        "CVE-2021-41190",
        lambda f: [(config_of(f), b'{"os":"linux","rootfs":{"type":"layers","diff_ids":[]}}')],
    ),
    # digests that lie
    "a layer that was changed": ("CVE-2024-8676", lambda f: spoilt(f, layers_of(f)[0])),
    "layers in another order": ("", lambda f: listed(f, Layers=layers_of(f)[::-1])),
    "a digest that is not the layer's": (
        "",
        lambda f: reconfigured(f, rootfs={"type": "layers", "diff_ids": [NOWHERE] * 2}),
    ),
    "digests that are paths": (
        "CVE-2014-9356",
        lambda f: reconfigured(
            f, rootfs={"type": "layers", "diff_ids": [f"sha256:{UP}CANARY/secret"] * 2}
        ),
    ),
    "a layout with a layer that was changed": (
        "CVE-2024-8676",
        lambda f: spoilt(f, layers_of(f)[0]) or relaid(f),
    ),
    "a layout whose manifest is elsewhere": ("", lambda f: relaid(f, digest=NOWHERE)),
    "a layout whose manifest is a path": (
        "CVE-2014-9356",
        lambda f: relaid(f, digest=f"sha256:{UP}CANARY/secret"),
    ),
    "a layout with a size that lies": ("", lambda f: relaid(f, size=1)),
    "a layout with a size below zero": ("CVE-2021-21285", lambda f: relaid(f, size=-1)),
    "a layout with a layer of another size": (
        "",
        lambda f: remade(f, lambda m: first_layer(m, size=1)),
    ),
    "a layout with a layer to be fetched": (
        "CVE-2020-15157",
        lambda f: remade(
            f, lambda m: first_layer(m, digest=NOWHERE, urls=["http://169.254.169.254/x"])
        ),
    ),
    "a layout whose manifest is an index too": (
        "CVE-2021-41190",
        lambda f: remade(f, lambda m: m.update({"manifests": []})),
    ),
    # documents that are too much, or none
    "a list without end": ("CVE-2021-21285", lambda f: f.update({"manifest.json": b" " * 9 * MIB})),
    "a list that is too deep": (
        "CVE-2021-21285",
        lambda f: f.update({"manifest.json": b"[" * MIB}),
    ),
    "a configuration without end": (
        "CVE-2021-21285",
        lambda f: reconfigured(f, comment="x" * 9 * MIB),
    ),
    "a configuration that is too deep": (
        "",
        lambda f: [(config_of(f), b'{"config":' * (MIB // 10))],
    ),
    "a configuration that is a list": ("CVE-2021-21285", lambda f: [(config_of(f), "[null]")]),
    "a list of nothing": ("CVE-2021-21285", lambda f: f.update({"manifest.json": b"[null]"})),
    "more layers than an image has": (
        "",
        lambda f: listed(f, Layers=[layers_of(f)[0]] * 100_000),
    ),
    "an image with a name that climbs": ("", lambda f: listed(f, RepoTags=["../../CANARY:1"])),
    "an image with two lines of a name": ("CVE-2022-4318", lambda f: listed(f, RepoTags=["a\nb"])),
    "an image with the name of a digest": ("", lambda f: listed(f, RepoTags=[f"a@{NOWHERE}"])),
}  # fmt: skip


@pytest.mark.parametrize("case", TAMPERED)
def test_a_changed_image_archive_is_refused(
    engine: PrivateEngine, canary: Path, saved: Files, case: str
) -> None:
    assert load(engine, tampered(saved, TAMPERED[case][1], canary))
    assert engine.request("GET", "/images/saved:1/json").status == 404


UNTOUCHED: dict[str, tuple[str, Change]] = {
    "nothing": ("", lambda f: None),
    "names from the root": (
        "CVE-2014-9356",
        lambda f: [(f"/{name}", f.pop(name)) for name in [*f]],
    ),
    "a link out that nothing names": ("CVE-2014-6407", lambda f: [("x", "link", "/CANARY/secret")]),
    "a link out, and a file through it": (
        "CVE-2014-6407",
        lambda f: [("x", "link", "/CANARY"), ("x/secret", "evil")],
    ),
    "a link out in place of the folder": (
        "CVE-2014-6407",
        lambda f: [("blobs", "link", "/CANARY"), *taken(f, "blobs/sha256/")],
    ),
    "the disk and the memory as devices": (
        "CVE-2024-8676",
        lambda f: [("sda", "block", {"devmajor": 8}), ("mem", "char", {"devmajor": 1})],
    ),
    "modes and owners": ("", lambda f: [("su", "x", {"mode": 0o6777, "uid": 0, "gid": 0})]),
    "documents of other programs": (
        "CVE-2024-8676",
        lambda f: [("spec.dump", '{"mounts":[{"source":"/CANARY"}]}'), ("config.dump", "{}"),
                   ("checkpoint/pages-1.img", "x"), ("rootfs-diff.tar", "x"),
                   ("bind.mounts", '[{"source":"/CANARY"}]'), ("backup.yaml", "x")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNTOUCHED)
def test_unreferenced_members_of_an_archive_have_no_effect(
    engine: PrivateEngine, canary: Path, saved: Files, case: str
) -> None:
    assert load(engine, tampered(saved, UNTOUCHED[case][1], canary)) == ""
    try:
        assert contents(engine, "saved:1") == {"etc/one": b"1", "etc/two": b"2"}
    finally:
        assert engine.request("DELETE", "/images/saved:1?force=1").status == 200


def contents(engine: PrivateEngine, image: str) -> dict[str, bytes]:
    """Return the regular files of an image, as a container of it exports them."""
    name = containers.unique("exported")
    body = {"Image": image, "Cmd": ["/nothing"]}
    assert engine.request("POST", f"/containers/create?name={name}", body).status == 201
    try:
        exported = engine.request("GET", f"/containers/{name}/export")
        assert exported.status == 200
    finally:
        assert engine.request("DELETE", f"/containers/{name}").status == 204
    result = {}
    with tarfile.open(fileobj=io.BytesIO(exported.body)) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isreg() else None
            if file is not None and (content := file.read()):
                result[member.name] = content
    return result


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("part", range(16))
def test_a_truncated_image_archive_is_refused(
    engine: PrivateEngine, canary: Path, saved: Files, part: int, pack: Callable[[bytes], bytes]
) -> None:
    data = pack(layer(list(saved.items())).rstrip(b"\0"))
    assert load(engine, data[: len(data) * part // 16])


# a file system in an archive


@pytest.mark.parametrize("case", REFUSED)
def test_a_changed_export_is_refused(engine: PrivateEngine, canary: Path, case: str) -> None:
    begin = time.monotonic()
    data = layer([("etc/own", "x"), *REFUSED[case][1]], canary)
    reply = engine.request("POST", "/images/create?fromSrc=-&repo=hostile&tag=1", data, headers=TAR)
    assert time.monotonic() - begin < SECONDS
    assert reply.status >= 400 or b'"error"' in reply.body
    assert reply.status < 500 or b"internal" not in reply.body
    assert engine.request("GET", "/images/hostile:1/json").status == 404


@pytest.mark.parametrize("case", HARMLESS)
def test_an_export_is_imported_with_its_content(
    engine: PrivateEngine, canary: Path, case: str
) -> None:
    data = layer([("etc/own", "own"), *HARMLESS[case][1]], canary)
    reply = engine.request("POST", "/images/create?fromSrc=-&repo=hostile&tag=1", data, headers=TAR)
    assert reply.status == 200 and b'"error"' not in reply.body, reply
    try:
        result = contents(engine, "hostile:1")
        assert result["etc/own"] == b"own"
        assert SECRET.encode() not in result.values()
    finally:
        assert engine.request("DELETE", "/images/hostile:1?force=1").status == 200


# files for a container


@pytest.fixture
def box(engine: PrivateEngine, busybox: str) -> Iterator[tuple[str, str]]:
    """Yield a stopped container with links out of it: name and id."""
    name = containers.unique("box")
    made = engine.request("POST", f"/containers/create?name={name}", {"Image": busybox})
    assert made.status == 201
    try:
        yield name, made.json()["Id"]
    finally:
        assert engine.request("DELETE", f"/containers/{name}?force=1").status == 204


@pytest.mark.parametrize("where", ["/", "/out"])
@pytest.mark.parametrize("case", [*REFUSED, *HARMLESS])
def test_an_archive_for_a_container_stays_in_its_root(
    engine: PrivateEngine, busybox: str, box: tuple[str, str], case: str, where: str
) -> None:
    """Extract into the root, and through links of the container to the host's tree."""
    name, id = box
    tree = hostile_archives.make_canary(engine.root / "canary")
    try:
        links = layer([("out", "link", f"{UP}CANARY")], tree)
        put(engine, name, "/", links)
        before = hostile_archives.fingerprint(engine.root, excluded=id)
        begin = time.monotonic()
        status = put(engine, name, where, layer((REFUSED | HARMLESS)[case][1], tree))
        assert time.monotonic() - begin < SECONDS
        assert status != 500
        assert hostile_archives.fingerprint(engine.root, excluded=id) == before
        assert not list(devices(engine.root, id))
    finally:
        for path in (tree / "secret", tree / "directory", tree):
            path.rmdir() if path.is_dir() else path.unlink()


def put(engine: PrivateEngine, name: str, where: str, data: bytes) -> int:
    reply = engine.request("PUT", f"/containers/{name}/archive?path={where}", data, headers=TAR)
    return reply.status


def devices(top: Path, id: str) -> Iterator[Path]:
    """Return device nodes among a container's files; a whiteout of overlayfs is not one."""
    for path in top.rglob("*"):
        if id in str(path):
            facts = path.lstat()
            if (stat.S_ISBLK(facts.st_mode) or stat.S_ISCHR(facts.st_mode)) and facts.st_rdev:
                yield path


@pytest.mark.parametrize("length", [0, 1, 511, 512, 700, 1024])
def test_a_truncated_archive_for_a_container_does_no_harm(
    engine: PrivateEngine, box: tuple[str, str], length: int
) -> None:
    before = hostile_archives.fingerprint(engine.root, excluded=box[1])
    status = put(engine, box[0], "/", layer([("etc/own", "x" * 5000)])[:length])
    assert status < 500
    assert hostile_archives.fingerprint(engine.root, excluded=box[1]) == before


@pytest.mark.parametrize("cve", ["CVE-2024-8676"])
def test_no_process_is_restored_from_an_archive(
    engine: PrivateEngine, box: tuple[str, str], canary: Path, cve: str
) -> None:
    """A checkpoint that the engine has not made is refused: no process is started from it."""
    query = f"checkpoint=one&checkpoint-dir={canary}"
    reply = engine.request("POST", f"/containers/{box[0]}/start?{query}")
    assert reply.status >= 400
    assert not containers.inspect(engine, box[0])["State"]["Running"]


# tests of the tests


@pytest.mark.parametrize("row", BITING, ids=lambda row: row[1][-1][0][-20:])
def test_a_careless_extractor_of_an_export_changes_the_canary(
    tmp_path: Path, row: tuple[str, tuple[Member, ...]]
) -> None:
    tree = hostile_archives.make_canary(tmp_path / "canary")
    before = hostile_archives.fingerprint(tree)
    (tmp_path / "scratch").mkdir()
    with (
        tarfile.open(fileobj=io.BytesIO(layer(row[1], tree))) as archive,
        contextlib.suppress(OSError),
    ):
        archive.extractall(tmp_path / "scratch", filter="fully_trusted")
    assert hostile_archives.fingerprint(tree) != before


CARELESS = (
    "a configuration outside",
    "a configuration of the host's",
    "a layer outside",
    "a layer of the host's",
    "a layer by a link out",
    "a layer by a climbing link",
    "a configuration by a link out",
    "a list by a link out",
)


@pytest.mark.parametrize("case", CARELESS)
def test_a_careless_reader_of_a_manifest_opens_the_canary(
    tmp_path: Path, saved: Files, case: str
) -> None:
    """Check the rows: a program that joins names to a directory opens the canary's secret."""
    tree = hostile_archives.make_canary(tmp_path / "canary")
    top = tmp_path / "scratch"
    top.mkdir()
    with tarfile.open(fileobj=io.BytesIO(tampered(saved, TAMPERED[case][1], tree))) as archive:
        archive.extractall(top, filter="fully_trusted")
    read = [(top / "manifest.json").read_text()]
    with contextlib.suppress(ValueError):
        (entry,) = json.loads(read[0])
        names = [entry["Config"], *entry["Layers"]]
        read += [Path(os.path.join(top, name)).read_text(errors="replace") for name in names]
    assert SECRET in read


def test_only_the_limit_refuses_an_endless_manifest(
    tmp_path: Path, saved: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same archive is accepted without the limit."""
    data = layer([*saved.items(), ("manifest.json", saved["manifest.json"] + b" " * 9 * MIB)])
    with pytest.raises(InvalidRequest):
        loaded_here(tmp_path / "held", data)
    for module in (archive_members, image_documents):
        monkeypatch.setattr(module, "DOCUMENT_LIMIT", 10 * MIB)
    assert {"one", "two"} <= set(loaded_here(tmp_path / "lifted", data))


def loaded_here(tmp_path: Path, data: bytes) -> list[str]:
    """Load into a private store and return the content of the layers."""
    paths = Paths(tmp_path / "root", tmp_path / "run")
    store = ImageStore(paths, LayerStore(paths))
    list(load_into(store, io.BytesIO(data)))
    return sorted(path.name for path in (tmp_path / "root/layers").rglob("*") if path.is_file())
