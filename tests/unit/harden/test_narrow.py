"""A profile only narrows: each of its fields is compared with what the container has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_type_hints

import msgspec
import pytest

from jaula.errors import Conflict
from jaula.features.harden import hardened_request, narrow
from jaula.features.harden.narrow import Given
from jaula.spec import confinement_profile
from jaula.spec.confinement_profile import Files, Limits, Network, Process, Profile, Seccomp

IMAGE: dict[str, Any] = {"Config": {"User": ""}}


def container(*, user: str = "", mounts: tuple[tuple[str, bool], ...] = (), **host: Any) -> Any:
    """Return the part of an inspect document that a comparison reads."""
    return {
        "Id": "1" * 64,
        "Name": "/web",
        "Image": "sha256:" + "0" * 64,
        "Config": {"User": user},
        "HostConfig": {"PidsLimit": 4096} | host,
        "Mounts": [{"Destination": path, "RW": writable} for path, writable in mounts],
        "NetworkSettings": {"Networks": {}},
    }


def fields(kind: type[msgspec.Struct], prefix: str = "") -> Iterator[str]:
    """Yield the names of all fields of a profile, those of its tables too."""
    hints = get_type_hints(kind)
    for field in msgspec.structs.fields(kind):
        hint = hints[field.name]
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            yield from fields(hint, f"{prefix}{field.encode_name}.")
        else:
            yield f"{prefix}{field.encode_name}"


def test_every_field_of_a_profile_is_compared() -> None:
    assert set(fields(Profile)) == set(narrow.FIELDS)


LISTS = {
    "SecurityOpt": [
        "seccomp-allow=x86_64:read,write", "landlock=read=/etc/", "landlock=write=/tmp/",
        "landlock=execute=/bin/sh", "no-new-privileges",
    ],
    "Egress": ["tcp:192.0.2.0/24:443", "tcp:db.example:5432"],
    "Listen": ["tcp:80"],
    "ReadonlyRootfs": True,
    "CapDrop": ["ALL"],
    "CapAdd": ["CHOWN"],
    "Devices": [
        {"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse", "CgroupPermissions": "rw"},
        {"PathOnHost": "/dev/snd", "PathInContainer": "/dev/snd", "CgroupPermissions": "rwm"},
    ],
}  # fmt: skip
NARROW = container(user="1000", mounts=(("/data", True), ("/etc/app", False)), **LISTS)
WIDENING = {
    "process.user": [Profile(name="p", process=Process(user=u)) for u in ("0", "root", "1001",
                                                                            "1000:0")],
    "process.no-new-privileges": [Profile(name="p", process=Process(no_new_privileges=False))],
    "capabilities": [Profile(name="p", capabilities=(c,)) for c in ("SYS_ADMIN", "kill", "ALL",
                                                                     "CAP_NET_RAW")],
    "devices": [
        Profile(name="p", devices=(d,))
        for d in ("/dev/vda", "/dev/fuse", "/dev/fuse:/dev/fuse:m", "/dev/fuse:/dev/other:r",
                  "/dev/sndx", "/dev/snd/../vda", "/dev/null:/dev/vda:r", "/dev/snd/a:/dev/b:r")
    ],
    "seccomp.syscalls": [
        Profile(name="p", seccomp=Seccomp(syscalls={"x86_64": ("mount",)})),
        Profile(name="p", seccomp=Seccomp(syscalls={"x86": ("read",)})),
    ],
    "files.read-only-root": [Profile(name="p", files=Files(read_only_root=False))],
    "files.tmpfs": [
        Profile(name="p", files=Files(tmpfs={path: options}))
        for path, options in (("/tmp", ""), ("/etc/app/sub", ""), ("/data/x", "suid"),
                              ("/data/x", "size=1m,dev"))
    ],
    "files.volumes": [
        Profile(name="p", files=Files(volumes=(path,))) for path in ("/srv", "/etc/app/x", "/datax")
    ],
    "files.read": [
        Profile(name="p", files=Files(read=(path,)))
        for path in ("/", "/etcx", "/usr/", "/etc/../usr/")
    ],
    "files.write": [Profile(name="p", files=Files(write=("/etc/",)))],
    "files.execute": [Profile(name="p", files=Files(execute=("/bin/",)))],
    "network.egress": [
        Profile(name="p", network=Network(egress=(item,)))
        for item in ("tcp:192.0.2.1:80", "udp:192.0.2.1:443", "tcp:192.0.0.0/16:443",
                     "tcp:192.0.2.1:443-444", "tcp:[::ffff:192.0.2.1]:443", "tcp:x.example:5432",
                     "tcp:0.0.0.0/0:443", "tcp:192.0.2.1:*")
    ],
    "network.listen": [
        Profile(name="p", network=Network(listen=(item,))) for item in ("tcp:81", "udp:80", "tcp:0")
    ],
}  # fmt: skip
CASES = [(section, each) for section, profiles in WIDENING.items() for each in profiles]


@pytest.mark.parametrize(("section", "wider"), CASES, ids=lambda each: str(each)[:90])
def test_what_the_container_lacks_is_refused(section: str, wider: Profile) -> None:
    found = narrow.given(wider, narrow.accesses(NARROW, IMAGE, without_former=True))
    assert {each.section for each in found} >= {section}
    with pytest.raises(Conflict, match="gives web what it does not have"):
        narrow.refuse("web", wider, found)


def test_every_field_that_can_give_something_has_a_case() -> None:
    compared = {name for name, compare in narrow.FIELDS.items() if compare is not narrow._nothing}
    assert compared == set(WIDENING)


def test_what_the_container_has_is_not_refused() -> None:
    same = Profile(
        name="p",
        process=Process(user="1000"),
        capabilities=("CHOWN", "cap_chown"),
        seccomp=Seccomp(syscalls={"x86_64": ("read",)}, unavailable={"x86": ("clone3",)}),
        files=Files(
            tmpfs={"/data/cache": "size=1m", "/etc/app": ""}, volumes=("/data", "/data/x"),
            read=("/etc/passwd", "/etc/"), write=("/tmp/x",), execute=("/bin/sh",),
            masked=("/proc/vmstat",),
        ),
        network=Network(
            mode="none", listen=("tcp:80",),
            egress=("tcp:192.0.2.7:443", "tcp:192.0.2.128/25:443", "tcp:DB.example:5432"),
        ),
        limits=Limits(pids=1 << 20, memory=1 << 40, cpus=64.0),
        devices=("/dev/fuse:/dev/fuse:rw", "/dev/snd/timer", "/dev/null"),
    )  # fmt: skip
    assert narrow.given(same, narrow.accesses(NARROW, IMAGE, without_former=True)) == []
    assert (
        narrow.given(Profile(name="p"), narrow.accesses(NARROW, IMAGE, without_former=False)) == []
    )


def test_a_container_of_defaults_is_narrowed_by_every_list() -> None:
    had = narrow.accesses(container(), IMAGE, without_former=True)
    lists = [each for section, each in CASES if section.startswith(("files", "network", "seccomp"))]
    found = [item for each in lists for item in narrow.given(each, had)]
    assert {each.item for each in found} == {"/data/x:suid", "/data/x:size=1m,dev"}
    assert narrow.given(Profile(name="p", capabilities=("SYS_ADMIN",)), had) == [
        Given("capabilities", "SYS_ADMIN")
    ]


def test_a_record_does_not_widen_a_former_profile() -> None:
    former = (
        'name = "former"\ncapabilities = ["CHOWN"]\n[network]\negress = ["tcp:192.0.2.1:443"]\n'
    )
    had = container(
        Profile=former, CapDrop=["ALL"], CapAdd=["CHOWN"], Egress=["tcp:192.0.2.1:443"],
        SecurityOpt=["no-new-privileges", "landlock=exec"], ReadonlyRootfs=True,
    )  # fmt: skip
    wider = Profile(
        name="p", capabilities=("KILL",), network=Network(egress=("tcp:198.51.100.1:22",))
    )
    sections = {
        each.section
        for each in narrow.given(wider, narrow.accesses(had, IMAGE, without_former=False))
    }
    assert sections == {"capabilities", "network.egress"}
    replaced = narrow.accesses(had, IMAGE, without_former=True)
    assert narrow.given(wider, replaced) == []
    never = Profile(name="p", capabilities=("SYS_ADMIN",), devices=("/dev/vda",))
    assert {each.section for each in narrow.given(never, replaced)} == {"capabilities", "devices"}


MORE: list[tuple[str, dict[str, Any]]] = [
    ("capabilities", {"CapAdd": ["CHOWN", "SYS_ADMIN"]}),
    ("devices", {"Devices": [{"PathOnHost": "/dev/vda"}]}),
    ("files.read-only-root", {"ReadonlyRootfs": False}),
    ("files.volumes", {"Tmpfs": {"/run": ""}}),
    ("NetworkMode", {"NetworkMode": "host"}),
    ("PidMode", {"PidMode": "host"}),
    ("IpcMode", {"IpcMode": "host"}),
    ("UTSMode", {"UTSMode": "host"}),
    ("UsernsMode", {"UsernsMode": "host"}),
    ("CgroupnsMode", {"CgroupnsMode": "host"}),
    ("SecurityOpt", {"SecurityOpt": [*LISTS["SecurityOpt"], "apparmor=unconfined"]}),
    ("SecurityOpt", {"Privileged": True}),
    ("process.no-new-privileges", {"SecurityOpt": []}),
    ("network.egress", {"Egress": None}),
    ("network.egress", {"Egress": ["tcp:192.0.2.0/23:443"]}),
    ("network.listen", {"Listen": None}),
    ("network.listen", {"Listen": ["tcp:80", "tcp:22"]}),
    ("limits.pids", {"PidsLimit": 0}),
    ("limits.pids", {"PidsLimit": 5000}),
    ("limits.memory", {"Memory": 0}),
    ("limits.swap", {"Memory": 1 << 26, "MemorySwap": -1}),
    ("limits.cpus", {"NanoCpus": 0}),
    ("files.masked", {"MaskedPaths": ["/proc/kcore"]}),
    ("files.masked", {"ReadonlyPaths": []}),
]


@pytest.mark.parametrize(("section", "change"), MORE, ids=lambda each: str(each)[:60])
def test_a_new_container_with_more_is_found(section: str, change: dict[str, Any]) -> None:
    base = LISTS | {
        "Memory": 1 << 26, "MemorySwap": 1 << 26, "NanoCpus": 10**9, "PidsLimit": 100,
        "MaskedPaths": ["/proc/kcore", "/proc/keys"], "ReadonlyPaths": ["/proc/sys"],
    }  # fmt: skip
    old = narrow.access(container(user="1000", **base))
    assert narrow.beyond(old, [old]) == []
    new = narrow.access(container(user="1000", **base | change))
    assert section in {each.section for each in narrow.beyond(new, [old])}
    less = narrow.access(container(user="1000", **base | {"CapAdd": [], "PidsLimit": 10}))
    assert narrow.beyond(less, [old]) == []


def test_another_user_is_more() -> None:
    old = narrow.access(container(user="1000"))
    assert narrow.beyond(narrow.access(container(user="")), [old])
    assert not narrow.beyond(old, [narrow.access(container(user="0:0"))])


# --- the request ----------------------------------------------------------------------------------


def test_a_requested_list_of_masked_paths_stays() -> None:
    defaults = list(hardened_request.MASKED_PATHS)
    for masked, kept in (
        (defaults, False),
        ([*defaults, "/proc/own"], True),
        (defaults[:3], True),
        ([], True),
    ):
        body = hardened_request.of_container(
            container(MaskedPaths=masked), IMAGE, "default", Profile(name="default")
        )
        assert ("MaskedPaths" in body["HostConfig"]) == kept
    options = {"SecurityOpt": ["mask=/proc/own:/proc/b"]}
    body = hardened_request.of_container(
        container(MaskedPaths=[*defaults, "/proc/own", "/proc/b"], **options), IMAGE, "default",
        Profile(name="default"),
    )  # fmt: skip
    assert "MaskedPaths" not in body["HostConfig"]


@pytest.mark.parametrize(
    ("former", "kept"),
    [
        ('name = "f"\n[process]\nno-new-privileges = false\n', {"no-new-privileges"}),
        ('name = "f"\n', {"seccomp-allow=x86_64:read"}),
        ('name = "f"\n[files]\nread-only-root = false\n', {"read-only"}),
    ],
)
def test_options_that_the_former_profile_did_not_set_stay(former: str, kept: set[str]) -> None:
    options = ["no-new-privileges", "seccomp-allow=x86_64:read", "landlock=exec"]
    inspect = container(Profile=former, SecurityOpt=options, ReadonlyRootfs=True)
    host = hardened_request.of_container(inspect, IMAGE, "default", Profile(name="default"))[
        "HostConfig"
    ]
    left = {*host["SecurityOpt"], *(("read-only",) if host["ReadonlyRootfs"] else ())}
    assert kept <= left


# --- items ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "item",
    ["/dev/fuse", "/dev/fuse:/x", "/dev/a:/dev/b:rwm", "/dev/a:/dev/b:r", "/dev/bus/usb/001/002"],
)
def test_devices(item: str) -> None:
    assert confinement_profile.is_device(item)


@pytest.mark.parametrize(
    "item",
    ["", "fuse", "/dev/", "/dev", "/etc/passwd", "/dev/../etc/x", "/dev/a/../../b", "/dev//a",
     "/dev/a:", "/dev/a:b", "/dev/a:/b:x", "/dev/a:/b:rr", "/dev/a:/b:rwmr", "/dev/a:/b:r:m",
     "/dev/a\n", "/dev/a\n/dev/b", "/dev/a b", "/dev/a:/../x", "/dev/a:rw", "/dev/a\x7f",
     "/dev/a\u2028b", "/dev/./a"],
)  # fmt: skip
def test_what_is_not_a_device(item: str) -> None:
    assert not confinement_profile.is_device(item)
