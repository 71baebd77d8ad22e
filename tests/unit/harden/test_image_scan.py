"""A profile guessed from an image: its programs are found, and a hostile image is bounded."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from harness import elf_files
from jaula.errors import InvalidRequest
from jaula.features.harden import profile_toml
from jaula.features.harden.image_scan import guess
from jaula.features.harden.image_scan_languages import LANGUAGES, language_of
from jaula.features.harden.image_scan_program import commands
from jaula.features.harden.image_scan_tree import SavedImage, read_archive
from jaula.spec import confinement_profile
from jaula.spec.confinement_profile import Profile

EXIT = bytes.fromhex("31ff b8e7000000 0f05")
Files = Mapping[str, "bytes | str | int"]  # content; '->' and a link's target; a directory's mode


def static(number: int) -> bytes:
    """Return a static program that makes one system call, and exits."""
    return elf_files.executable(b"\xb8" + number.to_bytes(4, "little") + b"\x0f\x05" + EXIT)


GETPID, GETPPID, CHROOT, CHMOD = static(39), static(110), static(161), static(90)


def layer(files: Files) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.mode = 0o755
            data = b""
            if isinstance(content, int):
                entry.type, entry.mode = tarfile.DIRTYPE, content
            elif isinstance(content, str) and content.startswith("->"):
                entry.type, entry.linkname = tarfile.SYMTYPE, content[2:]
            else:
                data = content.encode() if isinstance(content, str) else content
                entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def archive(config: dict[str, Any], *layers: bytes, **changes: bytes) -> io.BytesIO:
    document = json.dumps({"architecture": "amd64", "os": "linux", "config": config}).encode()
    names = [f"blobs/sha256/{hashlib.sha256(each).hexdigest()}" for each in (document, *layers)]
    manifest = json.dumps([{"Config": names[0], "RepoTags": ["a:1"], "Layers": names[1:]}])
    members = {**dict(zip(names, (document, *layers), strict=True)),
               "manifest.json": manifest.encode()} | changes  # fmt: skip
    return io.BytesIO(layer(members))


@contextmanager
def image(config: dict[str, Any], *layers: Files) -> Iterator[SavedImage]:
    read = read_archive(archive(config, *(layer(each) for each in layers)))
    try:
        yield read
    finally:
        read.tree.close()


def guessed(config: dict[str, Any], *layers: Files) -> Profile:
    with image(config, *layers) as read:
        made = guess(read.tree, read.document, "web", image="a:1")
    assert confinement_profile.load(profile_toml.dumps(made).encode(), "web.toml") == made
    return made


def calls(made: Profile) -> set[str]:
    always = {"execve", "exit", "exit_group", "restart_syscall", "rt_sigreturn"}
    assert always <= set(made.seccomp.syscalls["x86_64"])
    return set(made.seccomp.syscalls["x86_64"]) - always


@pytest.mark.parametrize(
    ("config", "files"),
    [
        ({"Entrypoint": ["/web"]}, {"web": GETPID}),
        ({"Cmd": ["web"]}, {"usr/bin/web": GETPID}),
        ({"Cmd": ["web"], "Env": ["PATH=/opt"]}, {"opt/web": GETPID, "usr/bin/web": GETPPID}),
        ({"Cmd": ["web"]}, {"bin": "->usr/bin", "usr/bin/web": "->/opt/w", "opt/w": GETPID}),
        ({"Cmd": ["./web"], "WorkingDir": "/srv"}, {"srv/web": GETPID}),
        ({"Cmd": ["/run.sh"]}, {"run.sh": "#!/sh\nexec /web --now\n", "sh": GETPID, "web": GETPID}),
        ({"Cmd": ["/sh", "-c", "cd /; web"]}, {"sh": GETPID, "bin/web": GETPID}),
        ({"Entrypoint": ["/tini", "--"], "Cmd": ["/web"]}, {"tini": GETPID, "web": GETPID}),
    ],
)
def test_the_program_is_found(config: dict[str, Any], files: Files) -> None:
    assert calls(guessed(config, files)) == {"getpid"}


def test_the_commands_of_an_entry_point_are_programs() -> None:
    script = '#!/bin/sh\nset -e\nif [ "$1" = web ]; then\n  prepare --all\nfi\nexec "$@"\n'
    made = guessed(
        {"Entrypoint": ["/entry.sh"], "Cmd": ["web"]},
        {"entry.sh": script, "bin/sh": static(1), "bin/prepare": GETPPID, "bin/web": GETPID,
         "bin/other": CHMOD},
    )  # fmt: skip
    assert calls(made) == {"write", "getpid", "getppid"}
    evidence = made.evidence["seccomp.syscalls.x86_64"]["getppid"]
    assert evidence.programs == ("/bin/prepare",)


def test_libraries_are_found_as_the_loader_does() -> None:
    library = elf_files.shared(bytes.fromhex("b827000000 0f05 c3"), {"f": 0})
    other = elf_files.shared(bytes.fromhex("b86e000000 0f05 c3"), {"f": 0})
    main = elf_files.shared(
        bytes.fromhex("ff15") + (0x90000 - elf_files.BASE - 6).to_bytes(4, "little") + EXIT,
        imports={"f": 0x90000}, needed=["libf.so"], entry=0, run_path="$ORIGIN/../own",
        interpreter="/lib64/ld.so",
    )  # fmt: skip
    loader = elf_files.executable(bytes.fromhex("b80c000000 0f05") + EXIT)
    files: dict[str, Any] = {"bin/web": main, "lib64/ld.so": loader, "own/libf.so": library}
    config = {"Cmd": ["web"]}
    assert calls(guessed(config, files | {"usr/lib/libf.so": other})) == {"getpid", "brk"}
    del files["own/libf.so"]
    configured = {"etc/ld.so.conf": "include /etc/l.d/*.conf", "etc/l.d/a.conf": "/opt/lib # x",
                  "opt/lib/libf.so": other}  # fmt: skip
    assert calls(guessed(config, files | configured)) == {"getppid", "brk"}
    missing = guessed(config, files)
    assert any("libf.so, which the image does not have" in note for note in missing.notes)


def test_an_interpreter_has_the_stated_list_of_its_language() -> None:
    made = guessed({"Cmd": ["python3", "app.py"]}, {"usr/bin/python3": "->python3.13",
                                                    "usr/bin/python3.13": GETPID})  # fmt: skip
    stated = LANGUAGES["python"]
    assert calls(made) <= stated
    assert {"accept4", "epoll_wait", "openat"} <= calls(made)
    assert made.seccomp.unavailable == {"x86_64": ("clone3",)}
    assert not {"mount", "ptrace", "bpf", "unshare"} & stated


@pytest.mark.parametrize(
    ("name", "language"),
    [("/usr/bin/python3.13", "python"), ("/usr/bin/pypy3", "python"), ("/n/node", "node"),
     ("/opt/jdk/bin/java", "java"), ("/usr/bin/perl5.40.1", "perl"),
     ("/usr/sbin/php-fpm8.4", "php"),
     ("/usr/bin/ruby3.3", "ruby"), ("/usr/bin/pythonic", ""), ("/bin/sh", ""), ("/nodes", "")],
)  # fmt: skip
def test_languages_are_known_by_the_name_of_the_interpreter(name: str, language: str) -> None:
    assert language_of(name) == language


def test_the_configuration_gives_ports_volumes_and_the_user() -> None:
    made = guessed(
        {"Cmd": ["/web"], "User": "www", "Volumes": {"/data/": {}},
         "ExposedPorts": {"80/tcp": {}, "53/udp": {}, "9000-9002": {}, "x": {}}},
        {"web": CHMOD, "tmp": 0o1777, "run": 0o755},
    )  # fmt: skip
    assert made.guessed
    assert made.process.user == "www"
    assert made.network.listen == ("tcp:80", "tcp:9000", "tcp:9001", "tcp:9002", "udp:53")
    assert made.files.read_only_root
    assert made.files.volumes == ("/data",)
    assert made.files.tmpfs == {"/run": "mode=755", "/tmp": "mode=1777"}
    assert made.files.write == ("/data/", "/run/", "/tmp/")
    assert made.capabilities == ()


def test_root_gets_the_capabilities_of_its_calls() -> None:
    made = guessed({"Cmd": ["/web"], "ExposedPorts": {"80/tcp": {}}}, {"web": CHMOD})
    assert made.capabilities == ("FOWNER", "FSETID", "NET_BIND_SERVICE")
    assert made.evidence["capabilities"]["FOWNER"].reason == "chmod"


def test_calls_that_the_default_filter_refuses_are_a_note() -> None:
    made = guessed({"Cmd": ["/web"]}, {"web": static(165)})  # mount
    assert calls(made) == set()
    assert any(note.endswith("refuses: mount") for note in made.notes)


def test_what_cannot_be_followed_is_a_note() -> None:
    made = guessed({"Cmd": ["/nothing"]}, {"web": GETPID})
    assert any("starts /nothing, which the image does not have" in note for note in made.notes)
    made = guessed({"Cmd": ["/text"]}, {"text": b"\x00\x01"})
    assert any("/text is neither an ELF file nor a script" in note for note in made.notes)
    made = guessed({"Cmd": ["/web"]}, {"web": b"\x7fELF" + bytes(100)})
    assert any("/web" in note and "64-bit" in note for note in made.notes)


def test_layers_are_put_together_as_overlayfs_does() -> None:
    lower = {"web": GETPPID, "opt/a": GETPPID, "opt/b": GETPPID, "d": 0o755, "d/x": GETPPID}
    upper = {"web": GETPID, "opt/.wh.a": b"", "d/.wh..wh..opq": b"", "d/y": GETPID}
    with image({"Cmd": ["/web"]}, lower, upper) as read:
        assert read.tree.names("/opt") == ("b",)
        assert read.tree.names("/d") == ("y",)
        assert read.tree.read("/web") == GETPID
        assert read.tree.read("/opt/a") is None


def test_commands_of_a_script() -> None:
    text = """# never /bin/comment
FOO=bar run --x && other || "$quoted"; x=$(inner a) | last
if first; then second; fi; exec third /data/file
"""
    assert {"run", "other", "inner", "last", "first", "second", "third", "/data/file"} <= set(
        commands(text)
    )
    assert "/bin/comment" not in set(commands(text))


# --- hostile images -------------------------------------------------------------------------------


def test_links_do_not_lead_out_of_the_image() -> None:
    files = {"a": "->b", "b": "->a", "up": "->../../../../etc/passwd", "host": "->/etc/passwd",
             "deep": "->" + "x/../" * 700 + "a"}  # fmt: skip
    with image({"Cmd": ["/a"]}, files) as read:
        for path in ("/a", "/up", "/host", "/deep", "/../../etc/passwd", "/" + "../" * 100_000):
            assert read.tree.read(path) is None


def test_libraries_that_need_each_other_end() -> None:
    def needs(*names: str) -> bytes:
        return elf_files.shared(EXIT, needed=names, entry=0, run_path="/l", interpreter="/l/a")

    made = guessed({"Cmd": ["/l/a"]}, {"l/a": needs("b", "a"), "l/b": needs("a", "b")})
    assert calls(made) == set()


def test_scripts_that_interpret_each_other_end() -> None:
    files = {"a": "#!/b\n/b", "b": "#!/a\n/a"}
    assert calls(guessed({"Cmd": ["/a"]}, files)) == set()


@pytest.mark.parametrize(
    ("stream", "error"),
    [
        (io.BytesIO(b""), "manifest.json"),
        (io.BytesIO(b"nothing" * 200), "a block is no header"),
        (archive({}, **{"manifest.json": b"{"}), "manifest.json"),
        (archive({}, **{"manifest.json": b'[{"Config": "x", "Layers": []}]'}), "configuration"),
        (io.BytesIO(archive({}, layer({"web": GETPID})).getvalue()[:1500]), "truncated"),
        (archive({}, layer({"../web": GETPID})), "leaves the layer"),
    ],
)
def test_a_damaged_archive_is_one_error(stream: io.BytesIO, error: str) -> None:
    with pytest.raises(InvalidRequest, match=error):
        read_archive(stream)
