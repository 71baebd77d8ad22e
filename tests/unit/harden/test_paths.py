"""Directories in place of paths: each path stays allowed, and the root never is an item."""

from hypothesis import given
from hypothesis import strategies as st

from jaula.features.harden import profile_paths

NAMES = st.text("abc.-1", min_size=1, max_size=3).filter(lambda name: name not in (".", ".."))
PATHS = st.lists(NAMES, min_size=1, max_size=6).map(lambda parts: "/" + "/".join(parts))


@given(st.sets(PATHS, max_size=60), st.integers(1, 40))
def test_every_path_is_below_its_item(given_paths: set[str], limit: int) -> None:
    items = profile_paths.generalize(given_paths, limit)
    if items is None:
        assert len(given_paths) > limit
        return
    assert items.keys() == given_paths
    assert len(set(items.values())) <= limit
    assert all(profile_paths.covers(item, path) for path, item in items.items())
    assert "/" not in items.values()


def test_few_files_stay_files() -> None:
    few = {f"/var/www/html/{n}.html" for n in range(profile_paths.FILES - 1)}
    assert profile_paths.generalize(few) == {path: path for path in few}


def test_many_files_of_a_directory_are_the_directory() -> None:
    many = {f"/var/www/html/{n}.html" for n in range(profile_paths.FILES)}
    assert set((profile_paths.generalize(many) or {}).values()) == {"/var/www/html/"}


def test_many_files_directly_in_etc_stay_files() -> None:
    many = {f"/etc/{n}.conf" for n in range(50)}
    assert profile_paths.generalize(many) == {path: path for path in many}


def test_many_directories_are_the_one_above() -> None:
    modules = {f"/usr/lib/python3/m{n}/m{m}.py" for n in range(4) for m in range(8)}
    assert set((profile_paths.generalize(modules) or {}).values()) == {"/usr/lib/python3/"}


def test_directories_of_usr_are_never_usr() -> None:
    given_paths = {f"/usr/{d}/f{n}" for d in ("bin", "lib", "share", "sbin") for n in range(9)}
    assert "/usr/" not in (profile_paths.generalize(given_paths) or {}).values()


def test_libraries_are_their_directory() -> None:
    path = "/usr/lib/x86_64-linux-gnu/libc.so.6"
    assert profile_paths.generalize([path]) == {path: "/usr/lib/x86_64-linux-gnu/"}


def test_proc_is_one_directory_and_devices_are_files() -> None:
    given_paths = ["/proc", "/proc/1/stat", "/dev/null", "/dev/pts/0", "/dev/zero"]
    items = profile_paths.generalize(given_paths) or {}
    assert items == {
        "/proc": "/proc/",
        "/proc/1/stat": "/proc/",
        "/dev/null": "/dev/null",
        "/dev/pts/0": "/dev/pts/",
        "/dev/zero": "/dev/zero",
    }


def test_a_container_with_too_many_paths_gets_larger_directories() -> None:
    given_paths = {f"/data/d{n}/e{m}/f" for n in range(40) for m in range(40)}
    items = profile_paths.generalize(given_paths)
    assert items is not None
    assert len(set(items.values())) <= profile_paths.LIMIT
    assert profile_paths.generalize({f"/d{n}/f" for n in range(9)}, 5) is None
