"""The texts of the pages, the flags of the form and the parsers of output, run by Node.js."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from jaula.features.web.static_files import DIRECTORY

# Pages import preact, which is not a part of the source: names are enough to load them.
PREACT = "".join(
    f"export const {name} = () => {{}};"
    for name in (
        *("html", "render", "createContext", "useState", "useReducer", "useEffect", "useRef"),
        *("useLayoutEffect", "useMemo", "useCallback", "useContext"),
    )
)
PRELUDE = """
globalThis.document = {documentElement: {lang: 'en', dataset: {}}};
globalThis.addEventListener = () => {};
globalThis.localStorage = {getItem: () => null, setItem: () => {}};
globalThis.IntersectionObserver = globalThis.ResizeObserver = class { observe() {} };
globalThis.location = {hash: '', origin: 'http://127.0.0.1'};
const print = value => process.stdout.write(JSON.stringify(value));
"""

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("static") / "static"
    shutil.copytree(DIRECTORY, target, ignore=shutil.ignore_patterns("vendor"))
    (target / "vendor").mkdir()
    (target / "vendor" / "preact.js").write_text(PREACT + "export class Component {}")
    (target / "package.json").write_text('{"type": "module"}')
    return target


def node(static: Path, program: str) -> Any:
    file = static / "test-program.js"
    file.write_text(PRELUDE + program)
    done = subprocess.run(["node", str(file)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_text_is_in_english_and_in_spanish_with_the_same_values(static: Path) -> None:
    program = """
    const {PAGES} = await import('./pages/index.js');
    const en = (await import('./i18n/en.js')).default, es = (await import('./i18n/es.js')).default;
    const all = [{name: 'shell', en, es}];
    for (const page of PAGES) all.push({name: page.path, ...(await page.load()).page.words});
    print({all, nav: PAGES.filter(page => page.nav).map(page => page.nav.word)});
    """
    found = node(static, program)
    for page in found["all"]:
        assert page["en"].keys() == page["es"].keys(), page["name"]
        for key, text in page["en"].items():
            other = page["es"][key]
            assert type(text) is type(other), key
            many, others = (one[-1] if isinstance(one, list) else one for one in (text, other))
            assert many
            assert others
            assert set(re.findall(r"{(\w+)}", many)) == set(re.findall(r"{(\w+)}", others)), key
    shell = found["all"][0]
    assert set(found["nav"]) <= shell["en"].keys()


# Keys that a template makes. A prefix here stands for all of its keys.
MADE = (
    *("audit.state.", "builds.running", "builds.done", "builds.failed", "container.change."),
    *("container.layer.", "container.tab.", "create.group.", "images.space.", "images.tab."),
    *("layer.", "live.", "map.filter.", "map.group.", "map.standing.", "map.view.", "nav.group."),
    *("secrets.tab.", "state.", "verdict."),
    *("audit.containers", "audit.engine", "audit.images", "audit.host"),
    *("projects.project", "projects.pod", "projects.kubelet"),
    *("projects.start", "projects.stop", "projects.restart", "projects.remove"),
    *("reach.yes", "reach.no", "reach.ports", "reach.list", "reach.rules"),
    *("stats.name", "stats.network", "stats.pressure"),
)


def test_every_text_is_used_and_every_used_text_exists() -> None:
    files = [p for p in DIRECTORY.rglob("*.js") if "vendor" not in p.parts]
    source = "\n".join(path.read_text() for path in files)
    source = re.sub(r"^ *//.*$", "", source, flags=re.MULTILINE)
    defined = set(re.findall(r"'([a-z]\w*\.[\w.-]+)': ?[\['\"]", source))
    used = set(re.findall(r"['\"`]([a-z]\w*\.[\w.-]+)['\"`](?!: ?[\['\"])", source))
    assert {key for key in defined - used if not key.startswith(MADE)} == set()
    called = set(re.findall(r"\bt\('([\w.-]+)'", source))
    assert {key for key in called - defined if "." in key} == set()


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ("Up Less than a second", "Desde hace 1 segundo"),
        ("Up About a minute (Paused)", "Desde hace 1 minuto (en pausa)"),
        ("Up 2 hours (health: starting)", "Desde hace 2 horas (prueba de salud: empezando)"),
        ("Exited (137) About an hour ago", "Terminado (137) hace 1 hora"),
        ("Restarting (-1) 3 seconds ago", "Reiniciando (-1) hace 3 segundos"),
        ("Created", "creado"),
        ("Removal In Progress", "Removal In Progress"),
        ("Up <b>2</b> hours", "Up <b>2</b> hours"),
    ],
)
def test_the_status_of_a_container_is_in_the_language_in_use(
    static: Path, status: str, text: str
) -> None:
    program = f"""
    const {{statusText}} = await import('./format.js');
    document.documentElement.lang = 'es';
    const spanish = statusText({json.dumps(status)});
    document.documentElement.lang = 'en';
    print([spanish, statusText('Up 2 hours (healthy)')]);
    """
    assert node(static, program) == [text, "Up 2 hours (healthy)"]


def test_an_address_that_is_not_encoded_correctly_is_no_page(static: Path) -> None:
    program = """
    const {match} = await import('./router.js');
    print([match('/images/:name*', '/images/%'), match('/containers/:id', '/containers/%E0%A4%A'),
      match('/images/:name*', '/images/a%2Fb/c').name, match('/containers/:id', '/containers/')]);
    """
    assert node(static, program) == [None, None, "a/b/c", None]


def test_a_command_line_and_the_form_are_the_same_request(static: Path) -> None:
    line = (
        "docker run -it --rm --name web -p 127.0.0.1:8080-8081:80-81/udp -m 64m --cpus=1.5"
        " -e 'A=b c' --cap-drop ALL -v data:/data --mount type=tmpfs,target=/t,tmpfs-size=1m"
        " --restart on-failure:3 --ulimit nofile=10:20 --health-cmd true --health-interval 1m30s"
        " --net front --network-alias www --secret db,target=pw,mode=0400 busybox sh -c 'echo $A'"
    )
    program = f"""
    const {{splitWords, shellWord}} = await import('./words.js');
    const {{parseCommand, commandWords, createBody}} = await import('./run_flags.js');
    const request = parseCommand(splitWords({json.dumps(line)}));
    const again = parseCommand(splitWords(commandWords(request).map(shellWord).join(' ')));
    print({{request, again, body: createBody(request)}});
    """
    found = node(static, program)
    assert found["request"] == found["again"]
    body = found["body"]
    host = body["HostConfig"]
    assert body["Cmd"] == ["sh", "-c", "echo $A"]
    assert body["Env"] == ["A=b c"]
    assert body["Tty"] is body["OpenStdin"] is True
    assert host["PortBindings"] == {
        "80/udp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}],
        "81/udp": [{"HostIp": "127.0.0.1", "HostPort": "8081"}],
    }
    assert (host["Memory"], host["NanoCpus"]) == (64 << 20, 1_500_000_000)
    assert host["Mounts"] == [
        {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 20}}
    ]
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 10, "Hard": 20}]
    assert host["Secrets"] == [{"Source": "db", "Target": "pw", "Mode": 0o400}]
    assert body["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 90_000_000_000}
    assert body["NetworkingConfig"]["EndpointsConfig"] == {"front": {"Aliases": ["www"]}}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("jaula run --no-such-flag x", "--no-such-flag"),
        ("jaula run -Z x", "-Z"),
        ("jaula run -m", "needs a value"),
        ("rm -rf /", "must begin with"),
    ],
)
def test_a_line_that_the_form_cannot_show_says_why(static: Path, line: str, problem: str) -> None:
    program = f"""
    const {{splitWords}} = await import('./words.js');
    const {{parseCommand}} = await import('./run_flags.js');
    try {{ parseCommand(splitWords({json.dumps(line)})); print(''); }}
    catch (error) {{ print(error.message); }}
    """
    assert problem in node(static, program)


def test_words_are_quoted_so_that_a_shell_reads_them_back(static: Path) -> None:
    words = ["", "a b", "it's", '"', "\\", "$(reboot)", "ñ", "-x", "a\nb", "`id`"]
    program = f"""
    const {{splitWords, shellWord}} = await import('./words.js');
    const words = {json.dumps(words)};
    const line = words.map(shellWord).join(' ');
    print({{line, back: splitWords(line)}});
    """
    found = node(static, program)
    assert found["back"] == words
    script = f'for word in {found["line"]}; do printf "%s\\0" "$word"; done'
    shell = subprocess.run(["sh", "-c", script], capture_output=True, check=True)
    assert shell.stdout.decode().split("\0")[:-1] == words


def test_escape_sequences_of_output_become_classes_or_nothing(static: Path) -> None:
    lines = [
        "\x1b[31mred\x1b[0m plain",
        "\x1b]0;title\x07text\x1b]8;;http://evil\x1b\\link",
        "progress 1\rprogress 2",
        "<script>alert(1)</script>",
        "\u202egnp.exe\x00\x9b",
        "\x1b[38;5;196mx\x1b[1;4my",
        "\x1b[",
    ]
    program = f"""
    const {{ansiParts}} = await import('./pages/container/output.js');
    print({json.dumps(lines)}.map(ansiParts));
    """
    assert node(static, program) == [
        [["ansi-1", "red"], ["", " plain"]],
        [["", "text"], ["", "link"]],
        [["", "progress 2"]],
        [["", "<script>alert(1)</script>"]],
        [["", "\ufffdgnp.exe\u2400\ufffd"]],
        [["", "x"], ["bold underline", "y"]],
        [],
    ]


def test_frames_of_output_are_lines_however_they_arrive(static: Path) -> None:
    program = """
    const {Demultiplexer} = await import('./pages/container/output.js');
    const frame = (kind, text) => {
      const data = new TextEncoder().encode(text);
      const all = new Uint8Array(8 + data.length);
      all[0] = kind;
      new DataView(all.buffer).setUint32(4, data.length);
      all.set(data, 8);
      return [...all];
    };
    const whole = [...frame(1, 'one\\nt'), ...frame(2, 'error\\r\\n'), ...frame(1, 'ñwo\\nrest')];
    const results = [];
    for (let step = 1; step <= whole.length; step += 3) {
      const lines = [];
      const demultiplexer = new Demultiplexer(false, (kind, line) => lines.push([kind, line]));
      for (let at = 0; at < whole.length; at += step)
        demultiplexer.add(Uint8Array.from(whole.slice(at, at + step)));
      demultiplexer.end();
      results.push(JSON.stringify(lines));
    }
    print([...new Set(results)].map(JSON.parse));
    """
    found = node(static, program)
    assert found == [[[1, "one"], [2, "error"], [1, "t\u00f1wo"], [1, "rest"]]]


def test_an_archive_of_the_browser_is_one_that_tar_reads(static: Path, tmp_path: Path) -> None:
    import tarfile

    name = "d/" + "ñ" * 120 + "/file.txt"
    program = f"""
    const {{archive}} = await import('./pages/container/tar.js');
    const file = Object.assign(new Blob(['hello']), {{name: 'x/plain', lastModified: 1e12}});
    const long = Object.assign(new Blob(['long']), {{name: 'y', archiveName: {json.dumps(name)}}});
    print(Buffer.from(await archive([file, long]).arrayBuffer()).toString('base64'));
    """
    import base64
    import io

    data = base64.b64decode(node(static, program))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == ["plain", name]
        file = tar.extractfile(name)
        assert file is not None
        assert file.read() == b"long"
