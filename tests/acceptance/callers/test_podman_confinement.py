"""podman's isolation options, read back inside the container."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.callers.caller import IMAGE
from harness.callers.podman import Podman

pytestmark = [pytest.mark.needs("podman"), pytest.mark.xdist_group("podman")]


def inside(podman: Podman, *flags: str, script: str) -> list[str]:
    return podman.out("run", "--rm", *flags, IMAGE, "sh", "-c", script).splitlines()


def test_a_default_container_has_no_extra_privileges(podman: Podman) -> None:
    flags = ("--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges")
    script = "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; touch /x || echo ro"
    assert inside(podman, *flags, script=script) == [
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "ro",
    ]


def test_capabilities_are_added_and_dropped(podman: Podman) -> None:
    flags = ("--cap-drop", "all", "--cap-add", "net_raw,chown")
    output = inside(podman, *flags, script="grep CapEff: /proc/self/status")
    assert output == [f"CapEff:\t{1 << 13 | 1 << 0:016x}"]


def test_an_unprivileged_user_has_no_effective_capability(podman: Podman) -> None:
    output = inside(podman, "-u", "33", script="grep -E '^Cap(Eff|Prm|Amb):' /proc/self/status")
    assert {line.split()[1] for line in output} == {"0" * 16}


def test_added_capabilities_reach_an_unprivileged_user(podman: Podman) -> None:
    flags = ("-u", "33", "--cap-add", "net_raw")
    output = inside(podman, *flags, script="grep CapEff: /proc/self/status")
    assert output == [f"CapEff:\t{1 << 13:016x}"]


def test_paths_are_masked_and_read_only(podman: Podman) -> None:
    script = "wc -c </proc/timer_list; ls /sys/firmware | wc -l"
    script += "; echo 1 >/proc/sys/kernel/domainname || echo refused"
    assert inside(podman, script=script) == ["0", "0", "refused"]


def test_unmask_removes_masks(podman: Podman) -> None:
    flags = ("--security-opt", "unmask=all")
    output = inside(podman, *flags, script="grep -c ' /proc/' /proc/self/mountinfo; true")
    assert output == ["0"]


def test_a_privileged_container_has_every_capability(podman: Podman) -> None:
    script = (
        "grep Seccomp: /proc/self/status; test -c /dev/loop-control -o -c /dev/kmsg && echo dev"
    )
    assert inside(podman, "--privileged", script=script) == ["Seccomp:\t0", "dev"]


def test_userns_auto_allocates_ids(podman: Podman) -> None:
    output = inside(podman, "--userns", "auto:size=2000", script="id -u; cat /proc/self/uid_map")
    assert output[0] == "0"
    first, outside, count = output[1].split()
    assert (first, count) == ("0", "2000")
    assert outside != "0"


def test_files_of_the_image_have_mapped_ids(podman: Podman) -> None:
    flags = ("--uidmap", "0:500000:5000", "--gidmap", "0:500000:5000")
    script = (
        "cat /proc/self/uid_map | tr -s ' '; stat -c %u /bin/sh; touch /made && stat -c %u /made"
    )
    assert inside(podman, *flags, script=script) == [" 0 500000 5000", "0", "0"]


def test_a_container_is_prepared_for_systemd(podman: Podman) -> None:
    script = "echo $container; touch /run/a /tmp/b /sys/fs/cgroup/systemd"
    script += "; grep -c ' /run ' /proc/self/mountinfo"
    output = inside(podman, "--systemd", "always", script=script)
    assert output[0] in ("podman", "oci")
    assert output[-1] == "1"


def test_volumes_have_their_options(podman: Podman, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("theirs\n")
    flags = ("-v", f"{tmp_path}:/rw", "-v", f"{tmp_path}:/ro:ro,noexec")
    script = "cat /ro/file; echo ours >/rw/new; echo no >/ro/new || echo refused; cat /ro/new"
    script += "; cp /bin/busybox /rw/; /ro/busybox true || echo noexec"
    output = inside(podman, *flags, script=script)
    assert output == ["theirs", "refused", "ours", "noexec"]


def test_a_read_only_mount_is_recursive(podman: Podman, tmp_path: Path) -> None:
    flags = ("--mount", f"type=bind,src={tmp_path},dst=/deep,ro=true,bind-propagation=rprivate")
    assert inside(podman, *flags, script="touch /deep/x 2>/dev/null || echo ro") == ["ro"]


def test_a_volume_is_id_mapped(podman: Podman, tmp_path: Path) -> None:
    """Files keep their owner on disk although the container's root is another user."""
    if podman.runtime.name == "runc" and "1.1." in podman.out("info"):
        pytest.skip("runc before 1.2 maps ids of mounts only for a user namespace it makes itself")
    (tmp_path / "file").write_text("")
    flags = ("--uidmap", "0:500000:5000", "--gidmap", "0:500000:5000")
    volume = ("--mount", f"type=bind,src={tmp_path},dst=/mapped,idmap")
    script = "stat -c %u /mapped/file; touch /mapped/new && echo made"
    assert inside(podman, *flags, *volume, script=script) == ["0", "made"]
    assert (tmp_path / "new").stat().st_uid == 0


def test_a_named_volume_is_filled_from_the_image(podman: Podman) -> None:
    podman("volume", "create", "named")
    output = inside(podman, "-v", "named:/etc", script="grep -c . /etc/passwd; touch /etc/kept")
    assert int(output[0]) > 1
    assert inside(podman, "-v", "named:/see", script="ls /see/kept") == ["/see/kept"]
    podman("volume", "rm", "named")


def test_devices_are_created(podman: Podman) -> None:
    flags = ("--device", "/dev/null:/dev/mine:rw")
    script = "stat -c '%F %t:%T' /dev/mine; echo x >/dev/mine && echo written; ls -d /dev/kmsg"
    output = podman("run", "--rm", *flags, IMAGE, "sh", "-c", script, expect=1).stdout
    assert output.splitlines() == ["character special file 1:3", "written"]


def test_an_unlisted_device_cannot_be_opened(podman: Podman) -> None:
    script = "mknod /tmp/kmsg c 1 11 && head -c 1 /tmp/kmsg"
    done = podman("run", "--rm", "--cap-add", "mknod", IMAGE, "sh", "-c", script, expect=1)
    assert "not permitted" in done.stderr.lower()


def test_default_devices_exist(podman: Podman) -> None:
    script = "for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done"
    script += "; for l in fd ptmx stdin; do readlink /dev/$l; done; ls -d /dev/shm /dev/mqueue"
    assert inside(podman, script=script) == [
        "/proc/self/fd",
        "pts/ptmx",
        "/proc/self/fd/0",
        "/dev/mqueue",
        "/dev/shm",
    ]


def test_a_tmpfs_has_its_options(podman: Podman) -> None:
    flags = ("--tmpfs", "/scratch:size=1m,mode=1770,noexec")
    script = "grep ' /scratch ' /proc/mounts; stat -c %a /scratch; df -k /scratch | tail -1"
    output = inside(podman, *flags, script=script)
    assert "size=1024k" in output[0] and "noexec" in output[0]
    assert output[1] == "1770"


def test_a_tmpfs_without_a_directory_in_the_image_is_world_writable(podman: Podman) -> None:
    flags = ("-u", "33", "--tmpfs", "/scratch", "--tmpfs", "/var/www")
    output = inside(podman, *flags, script="touch /scratch/x; stat -c %a /scratch /var/www")
    assert output == ["1777", "755"]


def test_shm_size_is_set(podman: Podman) -> None:
    output = inside(podman, "--shm-size", "2m", script="df -k /dev/shm | tail -1")
    assert output[0].split()[1] == "2048"


def test_process_limits_are_set(podman: Podman) -> None:
    flags = ("--ulimit", "nofile=100:200", "--ulimit", "core=0")
    assert inside(podman, *flags, script="ulimit -n; ulimit -Hn; ulimit -c") == ["100", "200", "0"]


def test_namespaced_sysctls_are_set(podman: Podman) -> None:
    flags = ("--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "kernel.shm_rmid_forced=1")
    script = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced"
    assert inside(podman, *flags, script=script) == ["1", "1"]


def test_a_sysctl_of_the_host_is_refused(podman: Podman) -> None:
    words = ("--sysctl", "kernel.panic=3", IMAGE, "true")
    assert podman("run", "--rm", *words, expect=None).returncode in (125, 126, 127)


def test_namespaces_of_the_host_are_shared(podman: Podman) -> None:
    script = "for k in pid ipc uts; do readlink /proc/self/ns/$k; done"
    output = inside(podman, "--pid", "host", "--ipc", "host", "--uts", "host", script=script)
    holder = Path(f"/proc/{podman.namespaces.pid}/ns")
    assert output == [str((holder / kind).readlink()) for kind in ("pid", "ipc", "uts")]


def test_the_oom_score_is_set(podman: Podman) -> None:
    script = "cat /proc/self/oom_score_adj"
    assert inside(podman, "--oom-score-adj", "200", script=script) == ["200"]


def test_the_umask_is_set(podman: Podman) -> None:
    assert inside(podman, "--umask", "0027", script="umask") == ["0027"]


def test_a_custom_seccomp_profile_is_loaded(podman: Podman, tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text(
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": '
        '[{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]}'
    )
    flags = ("--security-opt", f"seccomp={profile}")
    done = podman("run", "--rm", *flags, IMAGE, "mkdir", "/x", expect=1)
    assert "not implemented" in done.stderr.lower()
