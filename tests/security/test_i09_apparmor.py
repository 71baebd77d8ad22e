"""I9, AppArmor enforcing: every process has the engine's profile or the requested one."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import load_image
from harness import containers
from harness.engine import PrivateEngine
from harness.lsm_denials import Denials

LOADED = Path("/sys/kernel/security/apparmor/profiles")

pytestmark = [
    pytest.mark.vm,
    pytest.mark.usefixtures("print_denials"),
    pytest.mark.needs(str(LOADED)),
]

DEFAULT = re.compile(r"jaula-default-[0-9a-f]{12} \(enforce\)")
ENGINE = "jaula-engine"  # a profile that confines an engine


def current(process: int) -> str:
    return Path(f"/proc/{process}/attr/apparmor/current").read_text().rstrip("\0\n")


@pytest.fixture
def profile() -> Iterator[str]:
    """Load a profile of the host: everything except writing below /forbidden."""
    text = "profile jaula-test { file, capability, network, signal, deny /forbidden/** w, }"
    subprocess.run(["apparmor_parser", "-r", "-K"], input=text, text=True, check=True)
    yield "jaula-test"
    subprocess.run(["apparmor_parser", "-R", "-K"], input=text, text=True, check=True)


Confined = Callable[..., PrivateEngine]


@pytest.fixture
def confined(new_engine: Callable[..., PrivateEngine]) -> Confined:
    """Return a function that starts an engine under a profile, with the flags of that profile."""

    def start(flags: str = "") -> PrivateEngine:
        rules = "file, capability, network, unix, mqueue, mount, umount, pivot_root, ptrace,"
        rules += " signal, userns, change_profile -> **,"
        # Its name has the flags, since the workers of a run load the profile at the same time.
        name = ENGINE + (f"-{flags}" if flags else "")
        joined = ",".join(("attach_disconnected", *filter(None, (flags,))))
        text = f"profile {name} flags=({joined}) {{ {rules} }}"
        subprocess.run(["apparmor_parser", "-r", "-K"], input=text, text=True, check=True)
        engine = new_engine(start=False)
        command = ["aa-exec", "-p", name, "--", *engine.command()]
        engine.command = lambda: command  # type: ignore[method-assign]
        engine.start()
        assert engine.process is not None
        assert current(engine.process.pid) == f"{name} ({flags or 'enforce'})"
        return engine

    return start


def test_every_process_runs_under_the_engines_profile(engine: PrivateEngine, plain: str) -> None:
    label = current(containers.pid(engine, plain))
    assert DEFAULT.fullmatch(label)
    assert label in LOADED.read_text().splitlines()
    assert containers.inspect(engine, plain)["AppArmorProfile"] == "jaula-default"
    for flags in ((), ("-u", "1000"), ("--privileged",)):
        done = engine.cli("jaula", "exec", *flags, plain, "cat", "/proc/self/attr/apparmor/current")
        assert done.stdout.rstrip("\n") == label, done.stderr


def test_a_normal_container_works(engine: PrivateEngine, busybox: str) -> None:
    script = (
        "touch /f && chown 5:5 /f && echo ok > /dev/stdout && echo x > /dev/shm/x && ps > /dev/null"
        " && echo 100 > /proc/self/oom_score_adj && kill -0 1 && cat /etc/hosts > /dev/null"
    )
    done = engine.cli("jaula", "run", "--rm", busybox, "sh", "-c", script)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


def test_the_engine_may_signal_a_container(engine: PrivateEngine, busybox: str) -> None:
    script = "trap 'exit 7' TERM; while :; do sleep 1; done"
    with containers.running(engine, busybox, "sh", "-c", script) as name:
        assert engine.cli("jaula", "stop", name).returncode == 0
        assert containers.inspect(engine, name)["State"]["ExitCode"] == 7


@pytest.mark.parametrize(
    "command",
    [
        "mount -t tmpfs none /mnt",
        "mount -o bind /etc /mnt",
        "mount -o remount,rw /sys",
        "umount /dev/shm",
        "echo 1 > /proc/sys/kernel/panic",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        "echo h > /proc/sysrq-trigger",
        "cat /proc/kcore",
        "ls /sys/kernel/security",
        "echo x > /sys/kernel/mm/transparent_hugepage/enabled",
        "cat /sys/firmware/acpi/tables/DSDT",
    ],
)
def test_the_profile_holds_without_other_protections(
    engine: PrivateEngine, busybox: str, command: str
) -> None:
    """All capabilities, no seccomp, no mask, root of the host: only the profile decides."""
    flags = ("--privileged", "--userns", "host", "--security-opt", "apparmor=jaula-default")
    with containers.running(engine, busybox, flags=flags) as name:
        assert DEFAULT.fullmatch(current(containers.pid(engine, name)))
        assert engine.cli("jaula", "exec", name, "mkdir", "-p", "/mnt").returncode == 0
        done = engine.cli("jaula", "exec", name, "sh", "-c", command)
        assert done.returncode != 0, command
        assert "ermission denied" in done.stderr, done.stderr


def test_processes_of_another_profile_cannot_be_traced_or_signalled(
    engine: PrivateEngine, busybox: str, profile: str
) -> None:
    named = ("--security-opt", f"apparmor={profile}")
    with containers.running(engine, busybox, flags=named) as other:
        flags = ("--pid", f"container:{other}")
        denials = Denials()
        with containers.running(engine, busybox, flags=flags) as name:
            done = engine.cli("jaula", "exec", name, "cat", "/proc/1/environ")
            assert done.returncode != 0
            done = engine.cli("jaula", "exec", name, "kill", "-9", "1")
            assert done.returncode != 0
        assert denials.containing("ptrace", 'profile="jaula-default-', f'peer="{profile}"')
        assert denials.containing("signal", 'profile="jaula-default-', f'peer="{profile}"')
        assert containers.inspect(engine, other)["State"]["Running"]


def test_a_profile_can_be_requested(engine: PrivateEngine, busybox: str, profile: str) -> None:
    flags = ("--security-opt", f"apparmor={profile}")
    with containers.running(engine, busybox, flags=flags) as name:
        assert current(containers.pid(engine, name)) == f"{profile} (enforce)"
        assert containers.inspect(engine, name)["AppArmorProfile"] == profile
        script = "mkdir /forbidden && echo x > /forbidden/x"
        assert engine.cli("jaula", "exec", name, "sh", "-c", script).returncode != 0
        done = engine.cli("jaula", "exec", name, "cat", "/proc/self/attr/apparmor/current")
        assert done.stdout == f"{profile} (enforce)\n"


def test_an_unknown_profile_is_refused_before_a_container_is_created(
    engine: PrivateEngine, busybox: str
) -> None:
    made = engine.cli("jaula", "ps", "-aq").stdout
    done = engine.cli("jaula", "run", "--rm", "--security-opt", "apparmor=nosuch", busybox, "true")
    assert done.returncode == 125
    assert "the AppArmor profile nosuch is not loaded" in done.stderr
    assert engine.cli("jaula", "ps", "-aq").stdout == made


@pytest.mark.parametrize("flags", [("--privileged",), ("--security-opt", "apparmor=unconfined")])
def test_unconfined_and_privileged_remove_the_profile(
    engine: PrivateEngine, busybox: str, flags: tuple[str, ...]
) -> None:
    with containers.running(engine, busybox, flags=flags) as name:
        assert current(containers.pid(engine, name)) == "unconfined"
        assert containers.inspect(engine, name)["AppArmorProfile"] == "unconfined"


def test_no_new_privileges_and_a_profile_go_together(engine: PrivateEngine, busybox: str) -> None:
    flags = ("--security-opt", "no-new-privileges")
    with containers.running(engine, busybox, flags=flags) as name:
        assert DEFAULT.fullmatch(current(containers.pid(engine, name)))
        done = engine.cli("jaula", "exec", name, "cat", "/proc/self/attr/apparmor/current")
        assert DEFAULT.fullmatch(done.stdout.rstrip("\n"))


def test_a_confined_engine_stacks_the_profile(confined: Confined) -> None:
    """With no_new_privs a confined process can only become more confined."""
    engine = confined()
    image = load_image(engine, "busybox")
    with containers.running(engine, image) as name:
        own = current(containers.pid(engine, name))
        assert DEFAULT.fullmatch(own)
        assert engine.cli("jaula", "kill", name).returncode == 0
    flags = ("--security-opt", "no-new-privileges")
    with containers.running(engine, image, flags=flags) as name:
        label = current(containers.pid(engine, name))
        assert label == f"{own.partition(' ')[0]}//&{ENGINE} (enforce)"
        assert verdict(engine, name) == "holds"
        done = engine.cli("jaula", "exec", name, "cat", "/proc/self/attr/apparmor/current")
        assert done.stdout.rstrip("\n") == label, done.stderr
        signals_within(engine, name)
        assert engine.cli("jaula", "kill", name).returncode == 0


def signals_within(engine: PrivateEngine, name: str) -> None:
    """Check that processes of a container may signal and trace each other."""
    script = "sleep 60 & kill -0 $! && cat /proc/$!/environ > /dev/null && kill $!"
    done = engine.cli("jaula", "exec", name, "sh", "-c", script)
    assert done.returncode == 0, done.stderr


def test_a_stack_on_an_engine_that_is_only_observed_holds(confined: Confined) -> None:
    """Profiles of different modes make a label of the mode ``mixed``; the container's enforces."""
    engine = confined("complain")
    image = load_image(engine, "busybox")
    flags = ("--security-opt", "no-new-privileges")
    with containers.running(engine, image, flags=flags) as name:
        label, _, mode = current(containers.pid(engine, name)).partition(" ")
        assert (len(label.split("//&")), mode) == (2, "(mixed)")
        assert verdict(engine, name) == "holds"
        signals_within(engine, name)
        done = engine.cli("jaula", "exec", name, "sh", "-c", "echo 1 > /proc/sys/kernel/panic")
        assert done.returncode != 0
        assert engine.cli("jaula", "kill", name).returncode == 0


def test_an_engine_under_a_profile_that_confines_nothing_stacks_nothing(confined: Confined) -> None:
    """As that of the packages, which has the flag ``unconfined``."""
    engine = confined("unconfined")
    image = load_image(engine, "busybox")
    flags = ("--security-opt", "no-new-privileges")
    with containers.running(engine, image, flags=flags) as name:
        assert DEFAULT.fullmatch(current(containers.pid(engine, name)))
        assert verdict(engine, name) == "holds"
        signals_within(engine, name)
        assert engine.cli("jaula", "kill", name).returncode == 0


def default_profiles() -> set[str]:
    """Return the default profiles of all engines; another worker may remove others."""
    return {line for line in LOADED.read_text().splitlines() if line.startswith("jaula-default")}


def test_engines_with_different_labels_keep_the_profiles_of_each_other(
    confined: Confined, new_engine: Callable[..., PrivateEngine]
) -> None:
    first = confined()
    image = load_image(first, "busybox")
    flags = ("--security-opt", "no-new-privileges")
    with (
        containers.running(first, image) as name,
        containers.running(first, image, flags=flags) as stacked,
    ):
        before = default_profiles()
        label = current(containers.pid(first, name))
        second = new_engine()
        load_image(second, "busybox")
        with containers.running(second, image) as other:
            kept = current(containers.pid(first, name))
            row = verdict(first, name)
            for each in (name, stacked):
                signals_within(first, each)
                done = first.cli("jaula", "kill", each)
                assert done.returncode == 0, done.stderr
                assert first.cli("jaula", "wait", each).stdout == "137\n"
            assert (kept, row) == (label, "holds")
            assert current(containers.pid(second, other)) != label
            assert before <= default_profiles()
            assert second.cli("jaula", "kill", other).returncode == 0


def test_a_container_of_an_engine_before_names_by_text_keeps_its_profile(
    new_engine: Callable[..., PrivateEngine],
) -> None:
    """Such an engine loaded its profile by the name that is requested."""
    program = (
        "from jaula.security.lsm import apparmor_profile as profile;"
        "profile.loaded_name = lambda engine: profile.NAME;"
        "from jaula.cli.main import run_and_exit; run_and_exit()"
    )
    engine = new_engine(start=False)
    command = engine.command()
    module = command.index("-m")
    old = [*command[:module], "-c", program, *command[module + 2 :]]
    engine.command = lambda: old  # type: ignore[method-assign]
    engine.start()
    image = load_image(engine, "busybox")
    with containers.running(engine, image) as name:
        assert current(containers.pid(engine, name)) == "jaula-default (enforce)"
        engine.stop()
        engine.command = lambda: command  # type: ignore[method-assign]
        engine.start()
        assert current(containers.pid(engine, name)) == "jaula-default (enforce)"
        assert verdict(engine, name) == "holds"
        done = engine.cli("jaula", "exec", name, "cat", "/proc/self/attr/apparmor/current")
        assert done.stdout == "jaula-default (enforce)\n", done.stderr
        signals_within(engine, name)
        assert engine.cli("jaula", "restart", "-t", "0", name).returncode == 0
        assert DEFAULT.fullmatch(current(containers.pid(engine, name)))
        assert verdict(engine, name) == "holds"
        assert engine.cli("jaula", "kill", name).returncode == 0


@pytest.mark.parametrize(
    ("engines", "flags"),
    [(("--storage-driver", "vfs"), ()), (("--add-runtime", "runc=runc"), ("--runtime", "runc"))],
    ids=["vfs", "runc"],
)
@pytest.mark.needs("runc")
def test_the_profile_holds_with_another_storage_driver_or_runtime(
    new_engine: Callable[..., PrivateEngine], engines: tuple[str, ...], flags: tuple[str, ...]
) -> None:
    engine = new_engine(*engines)
    image = load_image(engine, "busybox")
    with containers.running(engine, image, flags=flags) as name:
        assert DEFAULT.fullmatch(current(containers.pid(engine, name)))
        done = engine.cli("jaula", "exec", name, "cat", "/proc/self/attr/apparmor/current")
        assert DEFAULT.fullmatch(done.stdout.rstrip("\n")), done.stderr


def test_verify_detects_a_profile_that_no_longer_enforces(
    engine: PrivateEngine, busybox: str, profile: str
) -> None:
    flags = ("--security-opt", f"apparmor={profile}")
    with containers.running(engine, busybox, flags=flags) as name:
        assert verdict(engine, name) == "holds"
        text = f"profile {profile} flags=(complain) {{ file, }}"
        subprocess.run(["apparmor_parser", "-r", "-K"], input=text, text=True, check=True)
        assert verdict(engine, name) == "FAILS"


def verdict(engine: PrivateEngine, name: str) -> str:
    """Return the verdict of the profile's row."""
    done = engine.cli("jaula", "verify", "--format", "json", name)
    rows = {row["id"]: row["verdict"] for row in json.loads(done.stdout)}
    return str(rows["apparmor profile"])


def test_info_and_verify_show_the_profile(engine: PrivateEngine, plain: str) -> None:
    document = engine.request("GET", "/info").json()
    assert "name=apparmor,profile=jaula-default" in document["SecurityOptions"]
    assert not [w for w in document["Warnings"] or [] if "AppArmor" in w]
    done = engine.cli("jaula", "verify", "--format", "json", plain)
    rows = {row["id"]: row for row in json.loads(done.stdout)}
    assert rows["apparmor profile"]["verdict"] == "holds", rows["apparmor profile"]
