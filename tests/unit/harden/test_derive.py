"""A profile has what its records have, and nothing that the kernel merely asked for."""

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.container_record import IMAGE, record
from jaula.errors import InvalidRequest
from jaula.features.harden import profile_toml
from jaula.features.harden.derive import derive, losses
from jaula.features.record.record_document import GivenDevice, Loss, text_of
from jaula.spec import confinement_profile
from jaula.spec.confinement_profile import Limits, Profile

WEB = "/usr/sbin/web"


def of(*entries: tuple[str, dict[str, Any]], **fields: Any) -> Profile:
    """Return the profile of one record of one program."""
    return derive([record(*((kind, WEB, each) for kind, each in entries), **fields)], "web")


def call(name: str, errno: str = "", **fields: Any) -> tuple[str, dict[str, Any]]:
    return "syscall", {"syscall": name, "errno": errno} | fields


def file(path: str, mode: str = "read", **fields: Any) -> tuple[str, dict[str, Any]]:
    return "file", {"path": path, "mode": mode} | fields


# --- capabilities ---------------------------------------------------------------------------------


def test_used_capabilities_are_in_it_with_their_evidence() -> None:
    made = of(
        ("capability", {"capability": "CAP_SETUID", "syscall": "setuid", "count": 3}),
        ("capability", {"capability": "CAP_SYS_ADMIN", "syscall": "brk"}),
        ("capability-refused", {"capability": "CAP_NET_RAW", "syscall": "socket"}),
    )
    assert made.capabilities == ("SETUID",)
    assert profile_toml.evidence_text(made.evidence["capabilities"]["SETUID"]) == (
        f"3 times by {WEB}: setuid"
    )
    assert any("CAP_SYS_ADMIN" in note for note in made.notes)


def test_a_capability_with_one_real_use_stays() -> None:
    made = of(
        ("capability", {"capability": "CAP_SYS_ADMIN", "syscall": "brk"}),
        ("capability", {"capability": "CAP_SYS_ADMIN", "syscall": "mount"}),
    )
    assert made.capabilities == ("SYS_ADMIN",)


def test_a_setuid_program_that_gains_keeps_new_privileges() -> None:
    gain = ("capability", "/usr/bin/sudo", {"capability": "CAP_SETUID", "syscall": "setuid"})
    assert not derive([record(gain, user="1000")], "web").process.no_new_privileges
    assert derive([record(gain, user="")], "web").process.no_new_privileges
    assert derive([record(gain, user="1000")], "web").process.user == "1000"


# --- system calls ---------------------------------------------------------------------------------


def test_system_calls_are_listed_by_architecture() -> None:
    made = of(call("openat"), call("open", abi="i386"), call("setsid"))
    assert {"openat", "setsid", "execve", "exit_group"} <= set(made.seccomp.syscalls["x86_64"])
    assert "open" not in made.seccomp.syscalls["x86_64"]
    assert {"open", "sigreturn"} <= set(made.seccomp.syscalls["x86"])


def test_a_call_that_always_fails_so_is_not_needed() -> None:
    made = of(call("mount", "EPERM"), call("clone3", "ENOSYS"), call("1000", "ENOSYS"))
    assert not {"mount", "clone3", "1000"} & set(made.seccomp.syscalls["x86_64"])
    assert made.seccomp.unavailable["x86_64"] == ("clone3",)
    assert any("mount" in note for note in made.notes)


def test_a_call_that_failed_once_is_needed() -> None:
    made = of(call("kill", "EPERM"), call("kill", "ESRCH"))
    assert "kill" in made.seccomp.syscalls["x86_64"]


def test_waits_for_connections_need_a_socket() -> None:
    assert "accept" not in of(call("read")).seccomp.syscalls["x86_64"]
    assert "accept" in of(call("listen")).seccomp.syscalls["x86_64"]


def test_lost_system_calls_leave_the_list_out() -> None:
    made = of(call("read"), losses={"syscalls": Loss(occurrences=3)})
    assert made.seccomp.syscalls == {}
    assert "lost 3 in syscalls" in made.notes[0]


# --- files ----------------------------------------------------------------------------------------


def test_files_are_read_and_programs_executed() -> None:
    made = of(file("/etc/web.conf"), ("exec", {"executed": "/bin/true"}))
    assert made.files.read == ("/etc/web.conf",)
    assert made.files.execute == ("/bin/true", WEB)
    assert made.files.read_only_root


def test_files_below_written_ones_leave_a_list_for_reading() -> None:
    written = file("/data/index.html", "write,create")
    made = of(written, file("/data/index.html"), mounts=("/data",))
    assert made.files.execute == (WEB,)
    assert made.files.read == ("/data/index.html",)
    assert made.files.write == ("/data/",)
    text = profile_toml.dumps(made)
    assert "1 program may be executed, all others are refused." in text
    assert "may be read" not in text


def test_a_program_that_reads_no_file_may_read_itself_only() -> None:
    made = of(file("/data/x", "write,create"), mounts=("/data",))
    assert made.files.read == made.files.execute == (WEB,)


def test_a_list_that_is_left_out_says_so() -> None:
    for files, words in (
        (confinement_profile.Files(execute=("/bin/sh",)), "# All files may be read."),
        (confinement_profile.Files(read=("/etc/",)), "# What may be read may be executed."),
        (confinement_profile.Files(), "# The whole root may be read and executed."),
    ):
        text = profile_toml.dumps(Profile(name="x", files=files))
        assert words in text
        assert confinement_profile.load(text.encode(), "x").files == files


def test_a_dynamic_program_needs_its_loader() -> None:
    made = of(file("/usr/lib/x86_64-linux-gnu/libc.so.6"))
    assert "/lib64/ld-linux-x86-64.so.2" in made.files.execute
    assert made.files.read == ("/usr/lib/x86_64-linux-gnu/",)


def test_without_the_start_files_are_not_restricted() -> None:
    made = of(file("/etc/web.conf"), call("read"), started=False)
    assert made.files.read == made.files.execute == ()
    assert "has the start" in made.notes[0]
    assert "mmap" in made.seccomp.syscalls["x86_64"]


@pytest.mark.parametrize(
    ("path", "tmpfs", "volumes"),
    [
        ("/tmp/x", ["/tmp"], ()),
        ("/run/web/web.pid", ["/run/web"], ()),
        ("/run/web.pid", ["/run"], ()),
        ("/var/cache/web/a/b", ["/var/cache/web"], ()),
        ("/var/lib/web/a/b/c", [], ("/var/lib/web",)),
        ("/data/a/b", [], ("/data",)),
        ("/srv/site/a", [], ("/srv/site",)),
        ("/etc/web/conf.d/x", [], ("/etc/web/conf.d",)),
        ("/etc/hosts", [], ()),
        ("/dev/null", [], ()),
        ("/proc/self/oom_score_adj", [], ()),
    ],
)
def test_written_files_have_a_place(path: str, tmpfs: list[str], volumes: tuple[str, ...]) -> None:
    files = of(file(path, "write,create")).files
    assert (list(files.tmpfs), files.volumes) == (tmpfs, volumes)
    assert files.read_only_root
    assert any(path.startswith(item.rstrip("/")) for item in files.write)


@pytest.mark.parametrize("path", ["/x", "/etc/passwd", "/usr/x"])
def test_a_file_of_the_system_makes_the_root_writable(path: str) -> None:
    made = of(file(path, "write"))
    assert not made.files.read_only_root
    assert path in made.evidence["files.read-only-root"]["read-only-root"].reason


def test_an_existing_mount_keeps_its_files() -> None:
    files = of(file("/var/lib/web/a/b", "write"), mounts=("/var/lib/web/a", "/unused")).files
    assert files.volumes == ("/var/lib/web/a",)


def test_a_written_program_is_a_note() -> None:
    made = of(file("/tmp/x", "write,create"), ("exec", {"executed": "/tmp/x"}))
    assert "exec" in made.files.tmpfs["/tmp"]
    assert "it executes /tmp/x, which it may write" in made.notes


def test_paths_that_are_read_are_not_masked() -> None:
    made = of(file("/proc/modules"), ("file-refused", {"path": "/sys/kernel/x"}))
    assert "/proc/modules" not in made.files.masked
    assert "/sys/kernel" not in made.files.masked
    assert "/proc/kallsyms" in made.files.masked


def test_calls_whose_paths_are_not_recorded_are_a_note() -> None:
    assert any("mkdir" in note and WEB in note for note in of(call("mkdir")).notes)


def test_changed_paths_have_a_place_too() -> None:
    change = ("change", {"path": "/var/lib/web/a", "syscall": "mkdir"})
    socket = ("bind", {"family": "unix", "address": "/run/web/socket"})
    made = of(call("mkdir"), change, socket)
    assert made.files.volumes == ("/var/lib/web",)
    assert list(made.files.tmpfs) == ["/run/web"]
    assert not any("mkdir" in note for note in made.notes)
    assert list(of(("change", {"path": "/var/run/x", "syscall": "mkdir"})).files.tmpfs) == ["/run"]


# --- network and devices --------------------------------------------------------------------------


def test_without_a_socket_there_is_no_network() -> None:
    assert of(call("read"), ("socket", {"family": "unix"})).network.mode == "none"
    assert of(("socket", {"family": "inet"})).network.mode == ""


def test_ports_are_restricted_if_the_start_was_recorded() -> None:
    bound = ("bind", {"family": "inet", "protocol": "tcp", "address": "0.0.0.0", "port": 20})
    server = ("socket", {"family": "inet"})
    made = of(server, bound)
    assert made.network.listen == ("tcp:20",)
    assert of(server).network.listen == ()
    assert "listen = []" in profile_toml.dumps(of(server))
    late = of(server, bound, started=False)
    assert late.network.listen is None
    assert "Connections from others are not restricted" in profile_toml.dumps(late)
    assert "ports, and files read and executed, are not restricted" in late.notes[0]


def test_ports_and_destinations_are_listed() -> None:
    made = of(
        ("socket", {"family": "inet"}),
        ("listen", {"family": "inet6", "protocol": "tcp", "address": "::", "port": 80}),
        ("listen", {"family": "inet", "protocol": "tcp", "address": "::1", "port": 40123}),
        ("bind", {"family": "inet", "protocol": "udp", "address": "0.0.0.0", "port": 53}),
        ("connect", {"family": "inet", "protocol": "tcp", "address": "192.0.2.1", "port": 443}),
        ("connect", {"family": "inet", "protocol": "tcp", "address": "127.0.0.1", "port": 80}),
        ("send", {"family": "inet6", "protocol": "udp", "address": "2001:db8::1", "port": 123}),
        ("connect", {"family": "inet6", "protocol": "tcp", "address": "::ffff:192.0.2.1",
                     "port": 443, "errno": "EINPROGRESS"}),
        ("connect", {"family": "inet", "protocol": "tcp", "address": "192.0.2.9", "port": 1,
                     "errno": "ENETUNREACH"}),
    )  # fmt: skip
    assert made.network.listen == ("tcp:0", "tcp:80", "udp:53")
    assert made.network.egress == ("tcp:192.0.2.1:443", "udp:[2001:db8::1]:123")
    assert made.evidence["network.egress"]["tcp:192.0.2.1:443"].count == 2


FUSE = GivenDevice(path="/dev/fuse", host="/dev/fuse", device="c 10:229")
DISK = GivenDevice(path="/dev/data", host="/dev/vdb", device="b 254:16", access="r")


def device(number: str, mode: str = "read") -> tuple[str, dict[str, Any]]:
    return "device", {"device": number, "mode": mode, "source": "kernel"}


def test_devices_besides_those_of_each_container_are_listed() -> None:
    made = of(
        *(file("/dev/null"), device("c 1:3"), file("/dev/pts/0"), device("c 136:0")),
        *(file("/dev/fuse", "read,write"), device("c 10:229", "read,write")),
        *(file("/dev/data"), device("b 254:16")),
        devices=(FUSE, DISK),
    )
    assert made.devices == ("/dev/fuse", "/dev/vdb:/dev/data:r")
    assert confinement_profile.load(profile_toml.dumps(made).encode(), "made") == made


@pytest.mark.parametrize(
    "entries",
    [
        (file("/dev/vda", "read,write,create"),),
        (file("/dev/vda"), device("b 254:0")),
        (file("/dev/fuse"),),
        (file("/dev/fuse"), device("c 1:3")),
        (file("/dev/vdb"), device("b 254:16")),
        (file("/dev/vda:/dev/fuse:rwm"), device("c 10:229")),
        (file("/dev/fuse\n"), device("c 10:229")),
        (file("/dev/../dev/fuse"), device("c 10:229")),
        (file("/dev/fuse", detached=True), device("c 10:229")),
    ],
)
def test_a_container_cannot_choose_a_device(entries: tuple[Any, ...]) -> None:
    made = of(*entries, devices=(FUSE, DISK))
    assert made.devices == ()


def test_another_program_does_not_confirm_a_device() -> None:
    entries = (
        ("file", "/bin/a", {"path": "/dev/fuse", "mode": "read"}),
        ("device", "/bin/b", {"device": "c 10:229"}),
    )
    assert derive([record(*entries, devices=(FUSE,))], "web").devices == ()


def test_another_record_does_not_confirm_a_device() -> None:
    first = record(("file", WEB, {"path": "/dev/fuse", "mode": "read"}), devices=(FUSE,))
    second = record(("device", WEB, {"device": "c 10:229"}), devices=(FUSE,))
    assert derive([first, second], "web").devices == ()


def test_devices_that_are_left_out_are_a_note() -> None:
    made = of(file("/dev/vda"))
    assert any("/dev/vda" in note and "not given" in note for note in made.notes)
    many = tuple(
        GivenDevice(path=f"/dev/x{n}", host=f"/dev/x{n}", device=f"c 500:{n}") for n in range(80)
    )
    entries = [each for n in range(80) for each in (file(f"/dev/x{n}"), device(f"c 500:{n}"))]
    made = of(*entries, devices=many)
    assert made.devices == ()
    assert any("80 devices are too many" in note for note in made.notes)


# --- what the container was not given -------------------------------------------------------------


def test_capabilities_of_an_own_user_namespace_are_left_out() -> None:
    made = of(
        ("capability", {"capability": "CAP_SYS_ADMIN", "syscall": "mount"}),
        ("capability", {"capability": "CAP_CHOWN", "syscall": "chown"}),
        capabilities=("CAP_CHOWN",),
    )
    assert made.capabilities == ("CHOWN",)
    assert any("CAP_SYS_ADMIN is left out" in note for note in made.notes)


def test_no_new_privileges_stays_if_the_container_had_it() -> None:
    gain = ("capability", "/tmp/su", {"capability": "CAP_SETUID", "syscall": "setuid"})
    made = derive([record(gain, user="1000", no_new_privileges=True)], "web")
    assert made.process.no_new_privileges


def test_calls_that_a_filter_refused_are_not_listed() -> None:
    made = of(
        call("kexec_load", "SIGSYS", layer="seccomp"),
        call("mount", "EACCES", layer="seccomp"),
        call("read", "EIO", layer="seccomp"),
        call("read"),
    )
    listed = set(made.seccomp.syscalls["x86_64"])
    assert "read" in listed
    assert not {"kexec_load", "mount"} & listed


@pytest.mark.parametrize(
    ("allowed", "left"),
    [
        ((), ()),
        (("tcp:192.0.2.0/24:400-500",), ("tcp:192.0.2.1:443",)),
        (("tcp:192.0.2.1:80",), ()),
        (("udp:192.0.2.1:443",), ()),
        (("tcp:198.51.100.0/24:*",), ("tcp:198.51.100.7:22",)),
        (("tcp:db.example:443",), ("tcp:db.example:443",)),
        (None, ("tcp:192.0.2.1:443", "tcp:198.51.100.7:22", "tcp:db.example:22",
                "tcp:db.example:443")),
    ],
)  # fmt: skip
def test_destinations_that_its_list_refused_are_left_out(
    allowed: tuple[str, ...] | None, left: tuple[str, ...]
) -> None:
    to = {"family": "inet", "protocol": "tcp"}
    made = of(
        ("socket", {"family": "inet"}),
        ("dns", {"name": "db.example", "query_type": "A"}),
        ("connect", to | {"address": "192.0.2.1", "port": 443}),
        ("connect", to | {"address": "198.51.100.7", "port": 22, "errno": "ECONNREFUSED"}),
        egress=allowed,
    )
    assert made.network.egress == left


def test_ports_that_its_list_refused_are_left_out() -> None:
    made = of(
        ("socket", {"family": "inet"}),
        ("listen", {"protocol": "tcp", "address": "0.0.0.0", "port": 80}),
        ("bind", {"protocol": "udp", "family": "inet", "address": "0.0.0.0", "port": 53}),
        listen=("tcp:80",),
    )
    assert made.network.listen == ("tcp:80",)


def test_limits_do_not_exceed_those_of_the_container() -> None:
    made = derive(
        [record(*((k, "", f | {"limit": limit}) for (k, f), limit in (
            (peak("pids", 18), 20), (peak("memory", 60 << 20), 64 << 20), (peak("cpu", 900), 1000),
        )))], "web",
    )  # fmt: skip
    assert (made.limits.pids, made.limits.memory, made.limits.cpus) == (20, 64 << 20, 1.0)


# --- records --------------------------------------------------------------------------------------


def test_records_are_joined() -> None:
    first = record(("file", WEB, {"path": "/etc/a", "mode": "read"}))
    second = record(("file", WEB, {"path": "/etc/b", "mode": "read"}))
    made = derive([first, second], "web")
    assert made.files.read == ("/etc/a", "/etc/b")
    assert made.evidence["files.execute"][WEB].records == 2
    assert derive([second, first], "web").files == made.files


def test_a_record_that_is_not_intact_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="not intact: no end"):
        derive([record(end=False)], "web")
    with pytest.raises(InvalidRequest, match="needs a record"):
        derive([], "web")


def test_records_of_two_images_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="different images"):
        derive([record(), record(image_id=IMAGE[:-1] + "1")], "web")


BYTES = st.binary(min_size=1, max_size=12).map(lambda data: "/" + text_of(data))
ENTRIES = st.one_of(
    st.tuples(
        st.just("file"),
        st.fixed_dictionaries({
            "path": BYTES,
            "mode": st.sampled_from(["read", "write", "write,create", "path", ""]),
            "count": st.integers(1, 1 << 62),
        }),
    ),
    st.tuples(
        st.just("syscall"),
        st.fixed_dictionaries({
            "syscall": st.sampled_from(["read", "mount", "clone3", "548"]),
            "errno": st.sampled_from(["", "EPERM", "ENOSYS", "512"]),
            "abi": st.sampled_from(["", "i386", "x32"]),
        }),
    ),
    st.tuples(
        st.sampled_from(["connect", "listen", "bind", "send"]),
        st.fixed_dictionaries({
            "family": st.sampled_from(["inet", "inet6", "unix", "2"]),
            "protocol": st.sampled_from(["tcp", "udp", ""]),
            "address": st.one_of(
                st.ip_addresses().map(str), st.text(max_size=8), BYTES,
            ),
            "port": st.integers(0, 65535),
        }),
    ),
    st.tuples(st.just("capability"), st.fixed_dictionaries({
        "capability": st.sampled_from(["CAP_CHOWN", "99", "CAP_SYS_ADMIN"]),
        "syscall": st.sampled_from(["brk", "chown"]),
    })),
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(ENTRIES, max_size=20), BYTES, st.booleans())
def test_any_record_gives_a_profile_that_reads_back(
    entries: list[tuple[str, dict[str, Any]]], program: str, started: bool
) -> None:
    made = derive([record(*((k, program, f) for k, f in entries), started=started)], "web")
    text = profile_toml.dumps(made)
    assert confinement_profile.load(text.encode(), "web.toml") == made
    assert profile_toml.dumps(confinement_profile.load(text.encode(), "web.toml")) == text
    assert all(line.isprintable() for line in text.splitlines())
    for items in (made.files.read, made.files.write, made.files.execute,
                  made.network.listen or ()):  # fmt: skip
        assert list(items) == sorted(set(items))


def peak(resource: str, value: int) -> tuple[str, dict[str, Any]]:
    return "resource", {"resource": resource, "value": value, "unit": ""}


def test_limits_are_peaks_with_a_margin() -> None:
    entries = (peak("pids", 4), peak("memory", 78 << 20), peak("cpu", 286), peak("cpu-time", 9))
    made = derive([record(*((k, "", f) for k, f in entries))], "web")
    assert (made.limits.pids, made.limits.memory, made.limits.cpus) == (6 + 16, 117 << 20, 0.45)
    assert made.evidence["limits"]["memory"].reason == "117 MiB: peak 78.0 MiB x 1.5"
    assert derive([record(*((k, "", f) for k, f in entries))], "web", margin=0).limits == Limits()


def test_a_reached_limit_is_a_note() -> None:
    made = derive([record(("resource", "", peak("oom-kills", 1)[1]))], "web")
    assert made.notes[-1] == "it reached its limit of memory in the records"


def test_names_are_destinations_with_the_ports() -> None:
    made = of(
        ("socket", {"family": "inet"}),
        ("dns", {"name": "DB.example", "query_type": "A", "protocol": "udp"}),
        ("dns", {"name": "bad name", "query_type": "A", "protocol": "udp"}),
        ("connect", {"family": "inet", "protocol": "tcp", "address": "192.0.2.1", "port": 5432}),
    )
    assert made.network.egress == ("tcp:192.0.2.1:5432", "tcp:db.example:5432")


@pytest.mark.parametrize(
    ("queries", "items"),
    [
        ((("db.example", "A"),), ("dns:db.example",)),
        ((("DB.example.", "AAAA"), ("db.example", "A")), ("dns:db.example",)),
        ((("_imap._tcp.example", "SRV"),), ("dns:_imap._tcp.example",)),
        ((("4.3.2.1.in-addr.arpa", "PTR"),), ("dns:4.3.2.1.in-addr.arpa",)),
        ((("bad name", "SRV"), ("*", "TXT"), ("", "NS")), ()),
    ],
)
def test_names_of_a_program_that_connects_to_nothing_are_queries(
    queries: tuple[tuple[str, str], ...], items: tuple[str, ...]
) -> None:
    rows = [("dns", {"name": name, "query_type": kind}) for name, kind in queries]
    made = of(("socket", {"family": "inet"}), *rows)
    assert made.network.egress == items


def test_a_name_with_ports_needs_no_item_for_its_other_queries() -> None:
    made = of(
        ("socket", {"family": "inet"}),
        *(("dns", {"name": "db.example", "query_type": kind}) for kind in ("HTTPS", "A", "AAAA")),
        ("dns", {"name": "mail.example", "query_type": "MX"}),
        ("connect", {"family": "inet", "protocol": "tcp", "address": "192.0.2.1", "port": 443}),
    )
    assert made.network.egress == (
        "dns:mail.example",
        "tcp:192.0.2.1:443",
        "tcp:db.example:443",
    )


def test_a_record_of_a_mechanism_without_system_calls_is_refused() -> None:
    made = record(("syscall", WEB, {"syscall": "read"}))
    assert made.header is not None
    header = msgspec.structs.replace(
        made.header, mechanism="fanotify", not_recorded=("system calls",)
    )
    with pytest.raises(InvalidRequest, match="a record by fanotify lacks: system calls"):
        derive([msgspec.structs.replace(made, header=header)], "web")


def test_a_small_container_has_memory_for_its_runtime() -> None:
    made = derive([record(("resource", "", peak("memory", 1 << 20)[1]))], "web")
    assert made.limits.memory == 32 << 20
    assert made.evidence["limits"]["memory"].reason == (
        "32 MiB: peak 1.0 MiB x 1.5, with room for the runtime"
    )


def test_a_container_with_long_and_many_paths_gives_a_profile_that_loads() -> None:
    long = ["/".join(["", *(f"{n:03}" * 80 for _ in range(15)), f"f{n}"]) for n in range(600)]
    entries = [("file", path, {"path": path, "mode": "read,write,create"}) for path in long]
    made = derive([record(*entries, *(("exec", p, {"executed": p}) for p in long))], "web")
    assert confinement_profile.load(profile_toml.dumps(made).encode(), "web.toml") == made
    assert made.files.execute == ()


def test_the_longest_lists_make_a_profile_that_loads() -> None:
    """All lists at their limits, with the evidence of each item, are within the bounds of TOML."""
    places = [("file", WEB, {"path": f"/d{n}/f", "mode": "write,create"}) for n in range(60)]
    read = [("file", f"/p/{n}", {"path": f"/r{n}", "mode": "read"}) for n in range(510)]
    programs = [("exec", WEB, {"executed": f"/bin/{n}"}) for n in range(500)]
    sockets = [("socket", WEB, {"family": "inet"})]
    for n in range(1000):
        to = {"family": "inet", "protocol": "tcp", "address": f"192.0.{n // 250}.{n % 250}"}
        sockets.append(("connect", f"/p/{n}", to | {"port": 80}))
        sockets.append(("bind", WEB, to | {"protocol": "udp", "port": n + 1}))
    calls = [("syscall", f"/p/{n % 9}", {"syscall": f"call_{n}x"}) for n in range(450)]
    made = derive([record(*places, *read, *programs, *sockets, *calls)], "web")
    assert made.incomplete == ()
    assert len(made.network.egress or ()) == len(made.network.listen or ()) == 1000
    assert confinement_profile.load(profile_toml.dumps(made).encode(), "web.toml") == made


def test_a_container_that_writes_everywhere_has_a_writable_root() -> None:
    made = of(*(file(f"/d{n}/e/f", "write,create") for n in range(2000)))
    assert not made.files.read_only_root
    assert made.files.volumes == ()
    assert made.files.write == ("/",)
    assert any("2000 places" in note for note in made.notes)
    assert of(*(file(f"/dev/x{n}") for n in range(100))).devices == ()


# --- losses ---------------------------------------------------------------------------------------

FULL = Loss(occurrences=3)


@pytest.mark.parametrize(
    ("table", "fields"),
    [
        ("syscalls", ("seccomp.syscalls",)),
        ("programs", ("files.execute", "files.read", "seccomp.syscalls")),
        ("files", ("files.execute", "files.read")),
        ("execs", ("files.execute", "files.read")),
        ("sockets", ("network.egress", "network.listen")),
        ("signals", ()),
    ],
)
def test_a_list_that_losses_take_out_is_named(table: str, fields: tuple[str, ...]) -> None:
    made = of(file("/etc/x"), call("read"), losses={table: FULL})
    assert made.incomplete == fields
    assert made.sources[0].losses == {table: 3}
    assert losses(made)[0] == f"the records lost some of: {table}"
    assert confinement_profile.load(profile_toml.dumps(made).encode(), "made") == made


def test_a_record_without_losses_leaves_no_list_out() -> None:
    made = of(file("/etc/x"), call("read"))
    assert (made.incomplete, losses(made)) == ((), [])


PROGRAMS = [("exec", WEB, {"executed": f"/bin/{n}"}) for n in range(600)]
DESTINATIONS = [
    ("connect", WEB, {"family": "inet", "protocol": "tcp", "address": f"192.0.{n // 250}.{n % 250}",
                      "port": 80})
    for n in range(1100)
]  # fmt: skip
PORTS = [
    ("listen", WEB, {"protocol": "tcp", "address": "0.0.0.0", "port": n + 1}) for n in range(1100)
]
PLACES = [("file", WEB, {"path": f"/d{n}/f", "mode": "write,create"}) for n in range(100)]
FILES = [("file", WEB, {"path": f"/{n}" + "x" * 200, "mode": "read"}) for n in range(2000)]


@pytest.mark.parametrize(
    ("entries", "field", "note"),
    [
        (PROGRAMS, "files.execute", "programs are too many"),
        (DESTINATIONS, "network.egress", "destinations are too many"),
        (PORTS, "network.listen", "ports are too many"),
        (PLACES, "files.read-only-root", "too many for mounts"),
        (FILES, "files.read", "files read: 2000 are too many"),
    ],
)
def test_a_list_that_is_too_long_is_named_with_a_note(
    entries: list[tuple[str, str, dict[str, Any]]], field: str, note: str
) -> None:
    sockets = ("socket", WEB, {"family": "inet"})
    made = derive([record(sockets, *entries)], "web")
    assert field in made.incomplete
    assert any(note in each for each in made.notes)
    assert any(field in each for each in losses(made))


def test_a_flood_of_notes_hides_no_list_that_is_left_out() -> None:
    refused = [("syscall", WEB, {"syscall": f"call{n}", "errno": "EPERM"}) for n in range(100)]
    made = derive([record(*refused, *PROGRAMS)], "web")
    assert any("600 programs" in note or "601 programs" in note for note in made.notes)
    assert made.notes[-1].endswith("more notes")
    assert len(made.notes) == 32


def test_files_and_addresses_by_io_uring_are_a_note() -> None:
    made = of(("io-uring", {"operation": "openat", "path": "/etc/shadow", "source": "kernel"}))
    assert any("it used io_uring (openat)" in note for note in made.notes)
    assert "/etc/shadow" not in made.files.read


def test_lists_of_many_records_are_joined() -> None:
    """One list has 1,024 items at most; those of several containers may have more."""
    to = {"family": "inet", "protocol": "tcp", "address": "192.0.2.1", "port": 443}
    entries = (("socket", WEB, {"family": "inet"}), ("connect", WEB, to))
    lists = [tuple(f"tcp:10.{n}.0.{i % 250}:{i + 1}" for i in range(1024)) for n in range(2)]
    records = [record(*entries, egress=each) for each in lists]
    assert derive(records, "web").network.egress == ()
