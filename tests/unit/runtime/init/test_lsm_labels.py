"""Labels of processes: the kernel's value is compared with the requested one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jaula.errors import RuntimeFailure
from jaula.kernel import selinuxfs
from jaula.runtime.init import process_labels
from jaula.runtime.init.process_labels import LabelFds, LabelRequest

SELINUX = b"system_u:system_r:container_t:s0:c1,c2"


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The kernel's files, by the end of their names."""
    answers: dict[str, str] = {}

    def read(path: str) -> str:
        for end, text in answers.items():
            if path.endswith(end):
                return text
        raise FileNotFoundError(path)

    monkeypatch.setattr(process_labels, "_read", read)
    monkeypatch.setattr(selinuxfs, "canonical", lambda text: text.replace("c2,c1", "c1,c2"))
    return answers


def test_a_process_with_its_labels_passes(says: dict[str, str]) -> None:
    says |= {"attr/current": SELINUX.decode(), "apparmor/current": "mine (enforce)"}
    process_labels.check(os.getpid(), LabelRequest(b"mine", None))
    process_labels.check(os.getpid(), LabelRequest(None, SELINUX))
    process_labels.check(os.getpid(), LabelRequest(None, SELINUX.replace(b"c1,c2", b"c2,c1")))
    process_labels.check(os.getpid(), LabelRequest())


@pytest.mark.parametrize(
    ("requested", "kernel"),
    [
        (LabelRequest(None, SELINUX), "system_u:system_r:unconfined_t:s0:c1,c2"),
        (LabelRequest(None, SELINUX), "system_u:system_r:container_t:s0:c1,c3"),
        (LabelRequest(None, SELINUX), ""),
        (LabelRequest(b"mine", None), "unconfined"),
        (LabelRequest(b"mine", None), "theirs (enforce)"),
    ],
)
def test_a_process_with_another_label_fails(
    says: dict[str, str], requested: LabelRequest, kernel: str
) -> None:
    says |= {"/current": kernel}
    with pytest.raises(RuntimeFailure, match="was requested, but the kernel reports"):
        process_labels.check(os.getpid(), requested)


def test_an_unreadable_label_fails_but_an_exited_process_does_not(
    says: dict[str, str],
) -> None:
    with pytest.raises(RuntimeFailure, match="does not report"):
        process_labels.check(os.getpid(), LabelRequest(b"mine", None))
    process_labels.check(
        4194305, LabelRequest(b"mine", SELINUX)
    )  # above the largest pid that there can be


def test_a_file_outside_of_procfs_is_never_written() -> None:
    reading, writing = os.pipe()
    try:
        with pytest.raises(RuntimeFailure, match="not on a proc"):
            process_labels.write(LabelRequest(None, SELINUX), LabelFds(-1, os.dup(writing)))
        os.set_blocking(reading, False)
        with pytest.raises(BlockingIOError):
            os.read(reading, 1)
    finally:
        os.close(reading)
        os.close(writing)


def test_a_label_that_the_kernel_rejects_fails() -> None:
    fd = os.open("/proc/self/comm", os.O_RDWR)  # on procfs, with other content
    with pytest.raises(RuntimeFailure, match="was requested"):
        process_labels.write(LabelRequest(b"mine", None), LabelFds(fd, -1))


def test_nothing_is_opened_without_a_requested_label() -> None:
    assert process_labels.open_proc(LabelRequest()) == -1
    assert process_labels.open_labels(LabelRequest(), -1) == LabelFds()


@pytest.mark.parametrize(
    ("current", "stacked"),
    [
        ("unconfined\n", False),
        ("jaula (unconfined)\n", False),
        ("engine (enforce)\n", True),
        ("engine (complain)\n", True),
        ("a//&engine (mixed)\n", True),
    ],
)
def test_a_profile_is_stacked_on_one_that_confines(
    tmp_path: Path, current: str, stacked: bool
) -> None:
    directory = tmp_path / "thread-self/attr/apparmor"
    directory.mkdir(parents=True)
    (directory / "current").write_text(current)
    (directory / "exec").write_text("")
    for request, expected in (
        (LabelRequest(b"mine", None, no_new_privileges=True), stacked),
        (LabelRequest(b"mine", None), False),
    ):
        fds = process_labels.open_labels(request, os.open(tmp_path, os.O_PATH))
        os.close(fds.apparmor)
        assert fds.stack == expected
