"""``jaula cri``: configuration files of the host."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from jaula.cli import command_table
from jaula.cli.cli_errors import CliError
from jaula.cli.command_parser import parse


def run(words: str, *arguments: str) -> None:
    command = command_table.load(words)
    assert command.run(parse(command, list(arguments))) == 0


def test_setup_writes_a_file_for_crictl_and_replaces_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "crictl.yaml"
    run("cri setup", "--output", str(path), "--socket", "/run/x/cri.sock")
    assert capsys.readouterr().out == f"{path}\n"
    document = yaml.safe_load(path.read_text())
    assert document["runtime-endpoint"] == document["image-endpoint"] == "unix:///run/x/cri.sock"
    with pytest.raises(CliError, match="exists already"):
        run("cri setup", "--output", str(path))
    run("cri setup", "--output", str(path), "--force")
    assert "unix:///run/jaula/cri.sock" in path.read_text()
    assert [entry.name for entry in path.parent.iterdir()] == ["crictl.yaml"]


def test_setup_adds_the_flag_to_the_command_of_the_unit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crictl, units = tmp_path / "crictl.yaml", tmp_path / "units"
    arguments = ("--output", str(crictl), "--unit-dir", f"{units}/")
    run("cri setup", *arguments)
    drop_in = units / "jaula.service.d/cri.conf"
    assert capsys.readouterr().out == f"{crictl}\n{drop_in}\n"
    unit = (Path(__file__).parents[3] / "packaging/jaula.service").read_text().splitlines()
    (command,) = [line for line in unit if line.startswith("ExecStart=")]
    lines = drop_in.read_text().splitlines()
    assert [line for line in lines if line.startswith("ExecStart=")] == [
        "ExecStart=",  # a list: the drop-in would add a second command
        f"{command} --cri",
    ]
    crictl.unlink()
    with pytest.raises(CliError, match=r"cri\.conf exists already"):
        run("cri setup", *arguments)
    assert not crictl.exists()  # nothing half-made


def test_cni_install_writes_a_bridge_for_both_families(tmp_path: Path) -> None:
    directory = tmp_path / "net.d"
    cidrs = "10.9.0.0/24,fd00:9::/64"
    run("cri cni-install", "--cni-conf-dir", str(directory), "--pod-cidr", cidrs)
    (path,) = directory.iterdir()
    plugins = json.loads(path.read_text())["plugins"]
    subnets = [entry[0]["subnet"] for entry in plugins[0]["ipam"]["ranges"]]
    assert (plugins[0]["type"], subnets) == ("bridge", ["10.9.0.0/24", "fd00:9::/64"])
    assert path.stat().st_mode & 0o777 == 0o644


def test_cni_install_respects_another_network(tmp_path: Path) -> None:
    (tmp_path / "05-other.conflist").write_text("{}")
    with pytest.raises(CliError, match=r"05-other\.conflist"):
        run("cri cni-install", "--cni-conf-dir", str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 1
    run("cri cni-install", "--cni-conf-dir", str(tmp_path), "--force")
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("cidr", ["10.0.0.0/31", "x", "10.0.0.0/24,10.1.0.0/24"])
def test_cni_install_refuses_a_bad_subnet(tmp_path: Path, cidr: str) -> None:
    with pytest.raises(CliError, match="CIDR"):
        run("cri cni-install", "--cni-conf-dir", str(tmp_path), "--pod-cidr", cidr)
    assert not list(tmp_path.iterdir())
