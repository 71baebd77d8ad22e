"""I26: flags of a mount's source that a user namespace could not clear stay in effect inside."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import load_image
from harness import builds, containers
from harness.engine import PROJECT, PrivateEngine
from harness.pods import Cri, calls, container_config, sandbox_config
from harness.private_runtime import PrivateRuntime
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.kernel.mountinfo import MountInfo

FLAGS = ("ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime")
OPPOSITES = {
    "ro": "rw",
    "nosuid": "suid",
    "nodev": "dev",
    "noexec": "exec",
    "noatime": "relatime",
    "nodiratime": "diratime",
    "strictatime": "noatime",
}
RUNC, CRUN = "/usr/sbin/runc", "/usr/bin/crun"


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True, text=True)


def flagged(path: Path, flag: str) -> Path:
    """Mount a file system at ``path`` whose mount, and not the file system, has a flag."""
    path.mkdir(parents=True, exist_ok=True)
    mount("-t", "tmpfs", "-o", "size=1m", "none", str(path))
    (path / "file").write_text("of the host")
    (path / "sub").mkdir()
    mount("-o", f"remount,bind,{flag}", str(path))
    return path


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield a directory with a mount for each flag, and a tree with such mounts below it."""
    top = tmp_path_factory.mktemp("flags")
    made: list[Path] = []
    try:
        for flag in OPPOSITES:
            made.append(flagged(top / flag, flag))
            made.append(flagged(top / "tree" / flag, flag))
        yield top
    finally:
        for path in reversed(made):
            subprocess.run(["umount", "-l", str(path)], check=False)


@pytest.fixture
def image_volume(engine: PrivateEngine) -> Iterator[str]:
    name = containers.unique("flags")
    assert engine.cli("jaula", "volume", "create", name).returncode == 0
    yield name
    engine.request("DELETE", f"/volumes/{name}?force=1")


def effective(flag: str, options: frozenset[str]) -> bool:
    """Return whether a mount has a flag; strictatime is the absence of the others."""
    if flag == "strictatime":
        return not {"noatime", "relatime"} & options
    return flag in options


@pytest.mark.parametrize("userns", [(), ("--userns=host",)], ids=["own-userns", "host-userns"])
def test_every_kind_of_mount_keeps_the_flags_of_its_source(
    engine: PrivateEngine, busybox: str, sources: Path, userns: tuple[str, ...]
) -> None:
    mounts = {}
    flags = list(userns)
    for flag in OPPOSITES:
        source = sources / flag
        flags += ["-v", f"{source}:/v-{flag}", "-v", f"{source}/file:/file-{flag}"]
        flags += ["-v", f"{source}/sub:/sub-{flag}:rw", "-v", f"{source}:/slave-{flag}:rslave"]
        flags += ["--mount", f"type=bind,source={source},target=/m-{flag}"]
        alone = f"type=bind,source={source},target=/n-{flag},bind-recursive=disabled"
        flags += ["--mount", alone]
        for kind in ("v", "file", "sub", "slave", "m", "n"):
            mounts[f"/{kind}-{flag}"] = flag
        mounts[f"/tree/{flag}"] = flag
    flags += ["-v", f"{sources}/tree:/tree"]
    with containers.running(engine, busybox, flags=tuple(flags)) as name:
        table = containers.mountinfo(containers.pid(engine, name))
        wrong = [path for path, flag in mounts.items() if not effective(flag, table[path].options)]
        assert not wrong
        words = "; ".join(
            f"! echo x 2>/dev/null > /{kind}-ro/new || echo {kind}" for kind in ("v", "m", "n")
        )
        words += "; ! touch /tree/ro/new 2>/dev/null || echo tree; ! : 2>/dev/null > /file-ro"
        done = engine.cli("jaula", "exec", name, "sh", "-c", words)
        assert done.stdout == ""
    assert not (sources / "ro" / "new").exists()


@pytest.mark.parametrize("userns", [(), ("--userns=host",)], ids=["own-userns", "host-userns"])
def test_a_volume_keeps_the_flags_of_its_directory(
    engine: PrivateEngine, busybox: str, image_volume: str, userns: tuple[str, ...]
) -> None:
    data = engine.root / "lib" / "volumes" / image_volume / "_data"
    (data / "part").mkdir()
    mount("--bind", str(data), str(data))
    try:
        for flag in ("ro", "noexec", "noatime"):
            mount("-o", f"remount,bind,{flag}", str(data))
            flags = ("-v", f"{image_volume}:/v", *userns)
            part = f"type=volume,source={image_volume},target=/p,volume-subpath=part"
            with containers.running(engine, busybox, flags=(*flags, "--mount", part)) as name:
                table = containers.mountinfo(containers.pid(engine, name))
                assert effective(flag, table["/v"].options)
                assert effective(flag, table["/p"].options)
                assert {"nosuid", "nodev"} <= table["/v"].options
    finally:
        subprocess.run(["umount", "-l", str(data)], check=False)


def test_a_mount_that_is_added_to_a_running_container_keeps_them(
    engine: PrivateEngine, busybox: str, sources: Path
) -> None:
    with containers.running(engine, busybox) as name:
        words = [word for flag in FLAGS for word in ("--mount-add", f"{sources}/{flag}:/{flag}")]
        done = engine.cli("jaula", "edit", name, *words, "--mount-add", f"{sources}/tree:/tree")
        assert done.returncode == 0, done.stderr
        table = containers.mountinfo(containers.pid(engine, name))
    for flag in FLAGS:
        assert effective(flag, table[f"/{flag}"].options)
        assert effective(flag, table[f"/tree/{flag}"].options)


def test_a_restart_and_a_copy_keep_them(
    engine: PrivateEngine, busybox: str, sources: Path, tmp_path: Path
) -> None:
    (tmp_path / "new").write_text("not for the host")
    with containers.running(engine, busybox, flags=("-v", f"{sources}/ro:/v")) as name:
        assert engine.cli("jaula", "restart", "-t", "0", name).returncode == 0
        assert "ro" in containers.mountinfo(containers.pid(engine, name))["/v"].options
        for state in ("running", "stopped"):
            done = engine.cli("jaula", "cp", str(tmp_path / "new"), f"{name}:/v/new")
            assert done.returncode != 0, state
            assert not (sources / "ro" / "new").exists()
            engine.cli("jaula", "stop", "-t", "0", name)


def test_an_image_mount_has_its_own_flags(engine: PrivateEngine, busybox: str) -> None:
    flags = ("--mount", f"type=image,source={busybox},target=/image")
    with containers.running(engine, busybox, flags=flags) as name:
        options = containers.mountinfo(containers.pid(engine, name))["/image"].options
    assert {"ro", "nosuid", "nodev"} <= options


@pytest.mark.parametrize("userns", [(), ("--userns=host",)], ids=["own-userns", "host-userns"])
def test_another_runtime_keeps_them(
    new_engine: Callable[..., PrivateEngine], sources: Path, userns: tuple[str, ...]
) -> None:
    """Also where the engine names a flag: a remount by such a runtime clears the others."""
    runtimes = {"own": str(PROJECT / "jaula-runtime")}
    if Path(RUNC).exists():
        runtimes["runc-itself"] = RUNC
    engine = new_engine(*(f"--add-runtime={name}={path}" for name, path in runtimes.items()))
    load_image(engine, "busybox")
    volume = containers.unique("flags")
    assert engine.cli("jaula", "volume", "create", volume).returncode == 0
    data = engine.root / "lib" / "volumes" / volume / "_data"
    mount("--bind", str(data), str(data))
    mount("-o", "remount,bind,ro", str(data))
    try:
        for runtime in runtimes:
            flags = [*userns, "--runtime", runtime, "-v", f"{volume}:/volume"]
            flags += ["-v", f"{sources}/tree:/tree"]
            flags += [word for flag in FLAGS for word in ("-v", f"{sources}/{flag}:/{flag}")]
            with containers.running(engine, "busybox", flags=tuple(flags)) as name:
                table = containers.mountinfo(containers.pid(engine, name))
            for flag in FLAGS:
                assert effective(flag, table[f"/{flag}"].options), (runtime, flag)
                assert effective(flag, table[f"/tree/{flag}"].options), (runtime, flag)
            assert {"ro", "nosuid", "nodev"} <= table["/volume"].options, runtime
    finally:
        subprocess.run(["umount", "-l", str(data)], check=False)


def test_a_step_of_a_build_keeps_the_flags_of_a_cache(
    new_engine: Callable[..., PrivateEngine],
) -> None:
    """The directory of a cache is the engine's; its file system may be mounted with flags."""
    engine = new_engine()
    load_image(engine, "busybox")
    show = "grep -E ' /(cache|context) ' /proc/self/mountinfo"
    mounts = "--mount=type=cache,target=/cache --mount=type=bind,target=/context,rw"
    context = {"Dockerfile": f"FROM busybox\nRUN {mounts} {show}\n"}
    builds.done(engine, context)
    (data,) = (engine.root / "lib" / "build" / "caches").glob("*/data")
    engine.stop()
    mount("--bind", str(data), str(data))
    try:
        mount("-o", "remount,bind,ro,noexec,noatime", str(data))
        engine.start()
        table = table_of(builds.done(engine, context, nocache=1).text)
        assert {"ro", "nosuid", "nodev", "noexec", "noatime"} <= table["/cache"]
        assert {"rw", "nosuid", "nodev"} <= table["/context"]
        engine.stop()  # it has the mount in its own namespace
    finally:
        subprocess.run(["umount", "-l", str(data)], check=False)
        engine.start()


def test_a_debug_session_sees_the_mounts_of_its_container_with_their_flags(
    engine: PrivateEngine, busybox: str, sources: Path
) -> None:
    flags = [word for flag in FLAGS for word in ("-v", f"{sources}/{flag}:/{flag}")]
    name = containers.unique("debugged")
    words = ("run", "-d", "--name", name, "-v", f"{sources}/tree:/tree", *flags, busybox)
    assert engine.cli("jaula", *words, "sleep", "600").returncode == 0
    debug = ("debug", "--image", busybox, name, "cat", "/proc/self/mountinfo")
    try:
        done = engine.cli("jaula", *debug)
        assert done.returncode == 0, done.stderr
        table = table_of(done.stdout)
        for flag in FLAGS:
            assert effective(flag, table[f"/{flag}"]), flag
            assert effective(flag, table[f"/tree/{flag}"]), flag
        engine.cli("jaula", "stop", "-t", "0", name)
        done = engine.cli("jaula", *debug)  # in a copy
        assert done.returncode == 0, done.stderr
        copied = table_of(done.stdout)
        for flag in FLAGS:
            assert f"/{flag}" not in copied or effective(flag, copied[f"/{flag}"]), flag
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1")


@pytest.mark.criu
def test_a_restore_keeps_the_flags(engine: PrivateEngine, busybox: str, sources: Path) -> None:
    flags = [word for flag in FLAGS for word in ("-v", f"{sources}/{flag}:/{flag}")]
    command = ("sh", "-c", "while :; do sleep 1; done")  # a restore interrupts a sleep
    with containers.running(engine, busybox, *command, flags=tuple(flags)) as name:
        done = engine.cli("jaula", "checkpoint", "create", name, "one")
        assert done.returncode == 0, done.stderr
        done = engine.cli("jaula", "start", "--checkpoint", "one", name)
        assert done.returncode == 0, done.stderr
        table = containers.mountinfo(containers.pid(engine, name))
    for flag in FLAGS:
        assert effective(flag, table[f"/{flag}"].options), flag


def test_a_mount_of_cri_keeps_the_flags(
    new_engine: Callable[..., PrivateEngine], sources: Path
) -> None:
    """Also beside read-only, and from a container of a pod with a user namespace."""
    engine = new_engine("--cri")
    load_image(engine, "busybox")
    found: dict[bool, dict[str, MountInfo]] = {}

    async def work(cri: Cri) -> None:
        for mapped in (False, True):
            sandbox = sandbox_config(f"flags-{mapped}")
            config = container_config("flags", "sleep", "600")
            for security in (sandbox.linux, config.linux) if mapped else ():
                options = security.security_context.namespace_options
                options.userns_options.mode = api_pb2.POD
                for rows in (options.userns_options.uids, options.userns_options.gids):
                    rows.add(container_id=0, host_id=1_950_000_000, length=65536)
            for flag in FLAGS:
                source = str(sources / flag)
                config.mounts.add(host_path=source, container_path=f"/{flag}")
                config.mounts.add(host_path=source, container_path=f"/r-{flag}", readonly=True)
            tree = str(sources / "tree")
            config.mounts.add(host_path=tree, container_path="/tree")
            config.mounts.add(
                host_path=tree,
                container_path="/slave",
                propagation=api_pb2.PROPAGATION_HOST_TO_CONTAINER,
            )
            pod = str((await cri.call("RunPodSandbox", config=sandbox)).pod_sandbox_id)
            created = await cri.call(
                "CreateContainer", pod_sandbox_id=pod, config=config, sandbox_config=sandbox
            )
            await cri.call("StartContainer", container_id=created.container_id)
            verbose = await cri.call(
                "ContainerStatus", container_id=created.container_id, verbose=True
            )
            process = json.loads(verbose.info["info"])["pid"]
            found[mapped] = containers.mountinfo(process)
            await cri.call("RemovePodSandbox", pod_sandbox_id=pod)

    calls(engine, work)
    for mapped, table in found.items():
        for flag in FLAGS:
            assert effective(flag, table[f"/{flag}"].options), (mapped, flag)
            assert effective(flag, table[f"/tree/{flag}"].options), (mapped, flag)
            assert effective(flag, table[f"/slave/{flag}"].options), (mapped, flag)
            options = table[f"/r-{flag}"].options
            assert "ro" in options, (mapped, flag)
            assert effective(flag, options), (mapped, flag)


# jaula-runtime, which takes any option


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[PrivateRuntime]:
    made = PrivateRuntime(tmp_path / "runtime")
    try:
        yield made
        left = made.left()
        assert not left, f"left behind: {left}"
    finally:
        made.clear()


def config(runtime: PrivateRuntime, mounts: list[dict[str, Any]], *, userns: bool) -> Any:
    changes: dict[str, Any] = {"mounts": [*runtime.config["mounts"], *mounts]}
    if userns:
        rows = [{"containerID": 0, "hostID": 0, "size": 65536}]
        namespaces = [*runtime.config["linux"]["namespaces"], {"type": "user"}]
        changes["linux"] = {"namespaces": namespaces, "uidMappings": rows, "gidMappings": rows}
    return changes


def bind(source: Path, target: str, *options: str, kind: str = "rbind") -> dict[str, Any]:
    return {
        "destination": target,
        "type": "bind",
        "source": str(source),
        "options": [kind, *options],
    }


def table_of(text: str) -> dict[str, frozenset[str]]:
    rows = [line.split() for line in text.splitlines()]
    return {row[4]: frozenset(row[5].split(",")) for row in rows if len(row) > 5}


READ = "cat /proc/self/mountinfo"
RESTRICTIONS = frozenset({"ro", "nosuid", "nodev", "noexec"})


def others() -> Iterator[list[str]]:
    """Yield the commands of other runtimes. crun needs the cgroups to be those of v2 alone."""
    if Path(RUNC).exists():
        yield [RUNC]
    if not Path(CRUN).exists():
        return
    top = Path("/sys/fs/cgroup")
    if (top / "cgroup.controllers").exists():
        yield [CRUN]
    elif (top / "unified" / "cgroup.controllers").exists():
        script = f'mount --bind {top}/unified {top} && exec "$0" --cgroup-manager=disabled "$@"'
        yield ["unshare", "--mount", "sh", "-c", script, CRUN]


@pytest.mark.parametrize("userns", [True, False])
def test_the_runtime_keeps_flags_as_runc_does(
    runtime: PrivateRuntime, sources: Path, userns: bool
) -> None:
    """Sources whose flags are not named, named, or beside another that is."""
    mounts = []
    for flag in OPPOSITES:
        named = [(), (flag,)] if userns else [(), (flag,), ("ro",), ("nodev", "noexec")]
        for number, options in enumerate(named):
            mounts.append(bind(sources / flag, f"/tmp/{flag}-{number}", *options))
            mounts.append(bind(sources / flag, f"/tmp/{flag}-{number}-b", *options, kind="bind"))
    mounts.append(bind(sources / "tree", "/tmp/tree"))
    mounts.append(bind(sources / "tree", "/tmp/tree-ro", "ro"))
    (runtime.rootfs / "tmp").mkdir(exist_ok=True)
    bundle = runtime.bundle(config(runtime, mounts, userns=userns), script=READ)
    ours = table_of(bundle.printed())
    for flag in OPPOSITES:
        for number in (0, 1):
            for suffix in ("", "-b"):
                path = f"/tmp/{flag}-{number}{suffix}"
                assert effective(flag, ours[path]), (path, ours[path])
        for tree in ("tree", "tree-ro"):
            assert effective(flag, ours[f"/tmp/{tree}/{flag}"])
    wanted = {mount["destination"] for mount in mounts}
    for words in others():
        program = Path(words[-1]).name
        words = [*words, "--root", str(runtime.base / program), "run"]
        done = subprocess.run(
            [*words, "-b", str(bundle.path), f"r-{bundle.id}"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, (program, done.stderr)
        theirs = table_of(done.stdout)
        if program == "crun":  # it clears the flags that no option names
            weaker = {p: theirs[p] - ours[p] for p in wanted if RESTRICTIONS & theirs[p] - ours[p]}
            assert not weaker
            continue
        assert {p: ours[p] for p in wanted} == {p: theirs[p] for p in wanted}, program


def test_a_user_namespace_keeps_flags_beside_those_that_are_named(
    runtime: PrivateRuntime, sources: Path
) -> None:
    more = ("ro", "nodev", "nosymfollow")
    kinds = ("bind", "rbind")
    mounts = [
        bind(sources / flag, f"/tmp/{kind}-{flag}", *more, kind=kind)
        for flag in OPPOSITES
        for kind in kinds
    ]
    bundle = runtime.bundle(config(runtime, mounts, userns=True), script=READ)
    table = table_of(bundle.printed())
    for flag in OPPOSITES:
        for kind in kinds:
            options = table[f"/tmp/{kind}-{flag}"]
            assert effective(flag, options)
            assert {*more} <= options


@pytest.mark.parametrize("flag", OPPOSITES)
def test_a_user_namespace_may_not_name_the_opposite(
    runtime: PrivateRuntime, sources: Path, flag: str
) -> None:
    opposite = OPPOSITES[flag]
    for mount_ in (
        bind(sources / flag, "/tmp/x", opposite),
        bind(sources / flag, "/tmp/x", "nosymfollow", opposite, kind="bind"),
        bind(sources / flag / "file", "/tmp/f", opposite, kind="bind"),
        bind(sources / "tree", "/tmp/x", f"r{opposite}"),
    ):
        bundle = runtime.bundle(config(runtime, [mount_], userns=True), script=READ)
        done = bundle.run()
        assert done.returncode == 1
        assert len(done.stderr.strip().splitlines()) == 1
        assert f"has {flag}, which a user namespace must keep" in done.stderr
        assert done.stdout == ""


def test_root_of_the_host_may_clear_a_flag(runtime: PrivateRuntime, sources: Path) -> None:
    mounts = [bind(sources / flag, f"/tmp/{flag}", OPPOSITES[flag]) for flag in FLAGS]
    bundle = runtime.bundle(config(runtime, mounts, userns=False), script=READ)
    table = table_of(bundle.printed())
    assert not [flag for flag in FLAGS if effective(flag, table[f"/tmp/{flag}"])]


@pytest.mark.parametrize("kind", ["bind", "rbind"])
def test_a_mount_of_a_read_only_file_system_may_be_writable(
    runtime: PrivateRuntime, tmp_path: Path, kind: str
) -> None:
    """The flag of the file system is no flag of the mount, so nothing is cleared."""
    source = tmp_path / "source"
    source.mkdir()
    mount("-t", "tmpfs", "-o", "ro", "none", str(source))
    try:
        mount("-o", "remount,bind,rw", str(source))
        mounts = [bind(source, "/tmp/x", "rw", kind=kind)]
        bundle = runtime.bundle(config(runtime, mounts, userns=True), script=READ)
        assert "rw" in table_of(bundle.printed())["/tmp/x"]
    finally:
        subprocess.run(["umount", "-l", str(source)], check=False)
