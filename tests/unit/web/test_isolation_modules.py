"""Decisions of the map and of reach, run by Node.js: shells, groups, reach, records, usage."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from jaula.features.web.static_files import DIRECTORY

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the modules that import no other part of the view."""
    target = tmp_path_factory.mktemp("static")
    for name in ("groups.js", "isolation.js", "reach.js", "record.js"):
        shutil.copy(DIRECTORY / name, target)
    (target / "package.json").write_text('{"type": "module"}')
    return target


def node(static: Path, program: str) -> Any:
    file = static / "program.js"
    file.write_text(program + "\nprocess.stdout.write(JSON.stringify(await main()));")
    done = subprocess.run(["node", str(file)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def container(name: str, *networks: str, mode: str = "", **more: Any) -> dict[str, Any]:
    return {
        "Id": name,
        "Names": [f"/{name}"],
        "NetworkSettings": {"Networks": {each: {} for each in networks}},
        "HostConfig": {"NetworkMode": mode or (networks[0] if networks else "none")},
        **more,
    }


def network(name: str, *, driver: str = "bridge", internal: bool = False, **options: str) -> Any:
    return {"Name": name, "Id": name, "Driver": driver, "Internal": internal, "Options": options}


def port(public: int, address: str = "0.0.0.0") -> dict[str, Any]:
    return {"IP": address, "PublicPort": public, "PrivatePort": 80, "Type": "tcp"}


ICC = {"com.docker.network.bridge.enable_icc": "false"}
CONTAINERS = [
    container("web", "shop", Ports=[port(8080)]),
    container("db", "shop", "vault"),
    container("safe", "vault"),
    container("local", "other", Ports=[port(81, "127.0.0.1")]),
    container("apart", "silent"),
    container("apart2", "silent"),
    container("nonet"),
    container("onhost", "host", mode="host"),
    container("side", mode="container:web"),
    container("kept", mode="container:listed"),
    container("wired", "wire"),
    container("listed", "shop"),
]
NETWORKS = [
    network("shop"),
    network("vault", internal=True),
    network("other"),
    network("silent", **ICC),
    network("wire", driver="macvlan"),
    network("host", driver="host"),
    network("none", driver="null"),
]


REACH = [
    ("web", "db", "yes"),
    ("web", "safe", "no"),
    ("db", "safe", "yes"),
    ("safe", "web", "no"),  # published ports included
    ("local", "web", "ports"),
    ("web", "local", "no"),  # published on loopback
    ("apart", "apart2", "no"),
    ("apart", "web", "ports"),
    ("nonet", "web", "no"),
    ("web", "nonet", "no"),
    ("side", "db", "yes"),
    ("side", "web", "yes"),
    ("outside", "side", "ports"),  # those of the container whose namespace it is in
    ("apart", "side", "ports"),
    ("kept", "outside", "list"),
    ("onhost", "safe", "yes"),
    ("web", "onhost", "rules"),
    ("onhost", "host", "yes"),
    ("safe", "host", "no"),
    ("web", "host", "rules"),
    ("wired", "host", "no"),
    ("host", "wired", "no"),
    ("host", "safe", "yes"),
    ("outside", "wired", "yes"),
    ("outside", "web", "ports"),
    ("outside", "local", "no"),
    ("outside", "db", "no"),
    ("outside", "onhost", "rules"),
    ("web", "outside", "yes"),
    ("safe", "outside", "no"),
    ("db", "outside", "yes"),
    ("listed", "outside", "list"),
    ("listed", "db", "list"),
    ("listed", "web", "list"),
]


@pytest.fixture(scope="module")
def answers(static: Path) -> dict[str, Any]:
    """Return the answers for all pairs of the table."""
    program = f"""
    import {{model, reach}} from './reach.js';
    const isolation = {{Egress: ['192.0.2.1:443'], Listen: null}};
    const observed = new Map([['listed', {{isolation}}]]);
    async function main() {{
      const host = model({json.dumps(CONTAINERS)}, {json.dumps(NETWORKS)}, observed);
      const party = name => host.byId.get(name) ?? name;
      return Object.fromEntries({json.dumps(REACH)}.map(
        ([from, to]) => [from + ' ' + to, reach(party(from), party(to))]));
    }}
    """
    found: dict[str, Any] = node(static, program)
    return found


@pytest.mark.parametrize(("source", "target", "can"), REACH)
def test_reach_is_that_of_the_table_of_networks(
    answers: dict[str, Any], source: str, target: str, can: str
) -> None:
    answer = answers[f"{source} {target}"]
    assert answer["can"] == can, answer
    words = (DIRECTORY / "i18n" / "map.js").read_text()
    assert f"'{answer['why']}'" in words


def test_the_form_of_a_shell_has_its_verdict(static: Path) -> None:
    program = """
    import {shells, LAYERS} from './isolation.js';
    const verdicts = ['holds', 'relaxed', 'fails', 'unknown'];
    async function main() {
      return verdicts.map(Verdict => shells([{Layer: LAYERS[0], Verdict}])[Verdict]);
    }
    """
    holds, relaxed, fails, unknown = node(static, program)
    assert holds.endswith("z")  # closed
    assert relaxed.count("M") == 1
    assert "z" not in relaxed
    assert fails.count("M") == 2
    assert unknown
    assert len({holds, relaxed, fails}) == 3


def test_shells_lie_within_each_other_and_in_the_square(static: Path) -> None:
    program = """
    import {shells, LAYERS} from './isolation.js';
    async function main() {
      const path = shells(LAYERS.map(Layer => ({Layer, Verdict: 'holds'}))).holds;
      return path.split('M').slice(1).map(each => Number(each.split(' ')[1].split('h')[0]));
    }
    """
    tops = node(static, program)
    assert tops == sorted(tops)
    assert len(tops) == 16
    assert 0 < tops[0] < tops[-1] < 36  # the core begins there


def test_projects_are_in_the_order_of_numbers_and_the_rest_is_last(static: Path) -> None:
    label = "com.docker.compose.project"
    entries = [
        {"Id": str(n), "Labels": {label: name} if name else {}}
        for n, name in enumerate(("stack10", "", "stack2", "stack2"))
    ]
    program = f"""
    import {{bestGrouping, group}} from './groups.js';
    const entries = {json.dumps(entries)};
    async function main() {{
      return {{way: bestGrouping(entries),
               groups: group(entries, 'project').map(([name, all]) => [name, all.length])}};
    }}
    """
    found = node(static, program)
    assert found == {"way": "project", "groups": [["stack2", 2], ["stack10", 1], ["", 1]]}


def pod_container(role: str, state: str = "running", pod: str = "shop") -> dict[str, Any]:
    labels = {"io.jaula.pod": pod, "io.jaula.pod-role": role}
    return {"Id": f"{pod}-{role}", "Labels": labels, "State": state}


def test_pods_of_the_engine_and_of_a_kubelet_are_groups_beside_projects(static: Path) -> None:
    entries = [
        {"Id": "a", "Labels": {"com.docker.compose.project": "zoo"}, "State": "running"},
        pod_container("member"),
        pod_container("infra"),
        {"Id": "k", "Pod": {"Namespace": "prod", "Name": "db", "Container": "main"}},
        {"Id": "alone", "Labels": {}},
    ]
    program = f"""
    import {{bestGrouping, group, groupsOf, roleOf}} from './groups.js';
    const entries = {json.dumps(entries)};
    const ids = members => members.map(each => each.Id);
    async function main() {{
      return {{groups: groupsOf(entries).map(each => [each.kind, each.name, ids(each.members)]),
               map: group(entries, 'project').map(([name, all]) => [name, ids(all)]),
               ways: [bestGrouping(entries), bestGrouping(entries.slice(1))],
               roles: entries.map(roleOf)}};
    }}
    """
    found = node(static, program)
    assert found["groups"] == [
        ["kubelet", "prod/db", ["k"]],
        ["pod", "shop", ["shop-infra", "shop-member"]],
        ["project", "zoo", ["a"]],
    ]
    assert [name for name, _ in found["map"]] == ["prod/db", "shop", "zoo", ""]
    assert found["ways"] == ["project", "pod"]
    assert found["roles"] == ["", "member", "infra", "main", ""]


@pytest.mark.parametrize(
    ("verb", "states", "requests"),
    [
        ("start", "exited", ["infra/start", "member/start"]),
        ("start", "running", []),
        ("stop", "running", ["member/stop", "init/stop", "infra/stop?t=0"]),
        ("stop", "exited", []),
        (
            "restart",
            "running",
            ["member/stop", "init/stop", "infra/stop?t=0", "infra/start", "member/start"],
        ),
        ("remove", "running", ["init?force=1&v=1", "member?force=1&v=1", "infra?force=1&v=1"]),
    ],
)
def test_the_infra_container_of_a_pod_starts_first_and_ends_last(
    static: Path, verb: str, states: str, requests: list[str]
) -> None:
    entries = [pod_container(role, states) for role in ("member", "infra", "init")]
    program = f"""
    import {{actionsOn, groupsOf}} from './groups.js';
    async function main() {{
      const [pod] = groupsOf({json.dumps(entries)});
      return actionsOn(pod, {json.dumps(verb)}).map(({{method, path}}) => [method, path]);
    }}
    """
    method = "DELETE" if verb == "remove" else "POST"
    assert node(static, program) == [[method, f"/containers/shop-{path}"] for path in requests]


def test_the_process_tree_has_parents_first_and_no_threads_of_the_kernel(static: Path) -> None:
    processes = [
        {"Pid": 1, "Parent": 0, "Name": "init"},
        {"Pid": 2, "Parent": 0, "Name": "kthreadd"},
        {"Pid": 3, "Parent": 2, "Name": "kworker"},
        {"Pid": 9, "Parent": 1, "Name": "b"},
        {"Pid": 8, "Parent": 1, "Name": "a"},
        {"Pid": 10, "Parent": 8, "Name": "c"},
    ]
    program = f"""
    import {{treeRows}} from './isolation.js';
    async function main() {{
      const rows = folded => treeRows({json.dumps(processes)}, new Set(folded)).map(
        row => [row.process.Pid, row.depth]);
      return [rows([]), rows([8])];
    }}
    """
    whole, folded = node(static, program)
    assert whole == [[1, 0], [8, 1], [10, 2], [9, 1]]
    assert folded == [[1, 0], [8, 1], [9, 1]]


def chain(*documents: dict[str, Any]) -> str:
    """Return the text of a record, as the recorder writes it."""
    before, lines = "0" * 64, []
    for number, document in enumerate(documents, 1):
        line = json.dumps({"n": number, "prev": before, **document})
        before = hashlib.sha256(line.encode()).hexdigest()
        lines.append(line)
    return "\n".join(lines) + "\n"


RECORD = chain(
    {"type": "header", "container": {"name": "web"}},
    {"type": "program", "path": "/bin/ñ"},
    {"type": "entry", "kind": "file", "program": 2, "path": "/etc/<b>", "count": 1},
    {"type": "total", "entry": 3, "count": 7, "first": 0, "last": 1},
    {"type": "end", "reason": "time", "duration": 10, "losses": {}},
)


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        (RECORD, 0),
        (RECORD.replace('"count": 7', '"count": 8'), 5),
        ("\n".join(RECORD.splitlines()[1:]) + "\n", 1),
        ("\n".join(RECORD.splitlines()[:2] + RECORD.splitlines()[3:]) + "\n", 3),
    ],
)
def test_a_changed_record_is_found(static: Path, text: str, broken: int) -> None:
    program = f"""
    import {{checkChain}} from './record.js';
    async function main() {{ return checkChain({json.dumps(text)}); }}
    """
    assert node(static, program)["broken"] == broken


def test_entries_have_their_programs_and_totals(static: Path) -> None:
    program = f"""
    import {{entriesOf, parseRecord}} from './record.js';
    async function main() {{ return entriesOf(parseRecord({json.dumps(RECORD)})); }}
    """
    assert node(static, program) == [
        {"kind": "file", "program": "/bin/ñ", "subject": "/etc/<b>", "count": 7}
    ]


@pytest.mark.parametrize("text", ["", "{}", '{"type": "entry"}', "[", "null"])
def test_a_file_that_is_no_record_is_an_error(static: Path, text: str) -> None:
    program = f"""
    import {{parseRecord}} from './record.js';
    async function main() {{
      try {{ parseRecord({json.dumps(text)}); }} catch (error) {{ return error.message; }}
      return '';
    }}
    """
    assert node(static, program)
