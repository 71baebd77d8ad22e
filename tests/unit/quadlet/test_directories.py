"""Search paths and drop-ins."""

from pathlib import Path

from jaula.features.quadlet import directories


def test_subdirectories_and_links_are_searched_once(tmp_path: Path) -> None:
    (tmp_path / "a" / "below").mkdir(parents=True)
    (tmp_path / "a" / "x.container.d").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "a")
    found = directories.search(
        {directories.VARIABLE: f"{tmp_path}/a:{tmp_path}/absent"}, user=False, podman=False
    )
    names = ["a", "a/below", "elsewhere", "absent"]
    assert found == [str(tmp_path / name) for name in names]


def test_a_system_searches_its_own_directories_and_those_of_podman() -> None:
    own = directories.search({}, user=False, podman=True)
    both = directories.search({}, user=False, podman=False)
    assert own[0] == "/run/jaula/systemd"
    assert not any("containers" in path for path in own)
    assert {"/etc/containers/systemd", "/usr/share/containers/systemd"} <= set(both)


def test_a_user_searches_below_its_home_and_runtime_directory() -> None:
    found = directories.search(
        {"HOME": "/home/a", "XDG_RUNTIME_DIR": "/run/user/1"}, user=True, podman=False
    )
    assert {
        "/run/user/1/jaula/systemd",
        "/home/a/.config/jaula/systemd",
        "/home/a/.config/containers/systemd",
        "/etc/containers/systemd/users",
    } <= set(found)


def test_the_most_specific_drop_in_directory_is_first() -> None:
    assert directories.drop_in_names("web-api@1.container") == [
        "web-api@1.container.d",
        "web-api@.container.d",
        "web-@.container.d",
        "web-.container.d",
        "container.d",
    ]


def test_of_drop_ins_with_one_name_the_most_specific_one_applies(tmp_path: Path) -> None:
    for directory in ("container.d", "web.container.d"):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "10.conf").touch()
    (tmp_path / "container.d" / "05.conf").touch()
    (tmp_path / "container.d" / "note.txt").touch()
    assert directories.drop_ins("web.container", [str(tmp_path)]) == [
        f"{tmp_path}/container.d/05.conf",
        f"{tmp_path}/web.container.d/10.conf",
    ]
