"""Which mounts of a honeypot are watched, and how a written file is listed."""

from __future__ import annotations

from jaula.features.honeypot.run_directory import File, Sample
from jaula.features.honeypot.written_files import MAX_PATHS, _merge, inside_id, watched_mounts
from jaula.kernel import mountinfo

_TABLE = mountinfo.parse(
    "1 0 0:1 / / rw - ext4 /dev/sda rw\n"
    "2 1 0:2 / /run/x/rootfs rw - overlay overlay rw\n"
    "3 2 0:3 / /run/x/rootfs/proc rw - proc proc rw\n"
    "4 2 0:4 / /run/x/rootfs/tmp rw - tmpfs tmpfs rw\n"
    "5 2 8:1 /etc/hosts /run/x/rootfs/etc/hosts rw - ext4 /dev/sda rw\n"
    "6 1 0:5 / /run/x/rootfs2 rw - tmpfs tmpfs rw\n"
)


def test_mounts_of_the_container_with_files_are_watched() -> None:
    watched = [mount.target for mount in watched_mounts(_TABLE, "/run/x/rootfs")]
    assert watched == ["/run/x/rootfs", "/run/x/rootfs/tmp", "/run/x/rootfs/etc/hosts"]


def test_an_owner_is_listed_as_the_container_sees_it() -> None:
    rows: list[tuple[int, ...]] = [(0, 100000, 1000), (1000, 500, 1)]
    assert inside_id(100000, rows) == 0
    assert inside_id(100999, rows) == 999
    assert inside_id(500, rows) == 1000
    assert inside_id(7, rows) == 7


def test_a_content_has_a_bounded_number_of_paths() -> None:
    sample: Sample | None = None
    for number in range(3 * MAX_PATHS):
        file = File(1.0, f"/tmp/{number}", 1, "0644", 0, 0, 1.0, sha256="aa")
        sample = _merge(sample, file)
    assert sample is not None
    assert len(sample.paths) == MAX_PATHS
    assert sample.writes == 3 * MAX_PATHS
