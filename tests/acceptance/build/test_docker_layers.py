"""One Dockerfile, built by dockerd's classic builder and by jaula, has the same layers."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.callers.dockerd import Dockerd

pytestmark = [pytest.mark.needs("dockerd"), pytest.mark.xdist_group("dockerd-builds")]
Run = Callable[..., "subprocess.CompletedProcess[str]"]
Layer = dict[str, tuple[object, ...]]
OLD = 1_000_000_000  # seconds; newer files were created during the test

CONTEXTS = {
    "files, modes, times, hard links": (
        (
            "echo a > a; mkdir -p d/e; echo c > d/e/c; chmod 700 d/e; ln -s c d/e/l; ln a d/hard; "
            "touch -d @1000 a d/e d/e/c"
        ),
        "COPY a /x\nCOPY a d/e/c /dir/\nCOPY d /new/deep\nCOPY . /all\nCOPY d /all2/\n",
    ),
    "links in the context": (
        "mkdir real; echo x > real/f; ln -s real ld; ln -s real/f lf; ln -s /abs la; echo y > abs",
        "COPY lf /\nCOPY ld /out\nCOPY la /out2/\nCOPY l* /out3/\n",
    ),
    "links in the image": (
        "echo x > f; mkdir s; echo y > s/f",
        (
            "RUN mkdir -p /real /t && ln -s /real /link && ln -s /made /dangling "
            "&& echo o > /real/o && ln -s /real/o /lo && ln -s ../etc/shells /up\n"
            "COPY f /link/\nCOPY f /lo\nCOPY f /dangling\nCOPY s /link\nCOPY f /up\n"
        ),
    ),
    "patterns": (
        (
            "echo a > a.txt; echo b > b.txt; mkdir -p d1/x d2; echo c > d1/c.txt; "
            "echo e > d2/e.txt; echo f > d1/x/f; echo 0 > 'arr[0]'"
        ),
        "COPY *.txt /w/\nCOPY d?/*.txt /w2/\nCOPY d* /w3/\nCOPY arr[[]0] /\n",
    ),
    "targets below the working directory": (
        "echo a > a",
        (
            "WORKDIR /w/x\nCOPY a .\nCOPY a b\nCOPY a ./\nCOPY a ../up\nCOPY a sub/\n"
            "WORKDIR rel\nCOPY a .\n"
        ),
    ),
    "owners": (
        "echo a > a; mkdir d; echo b > d/b; chmod 600 d/b",
        "COPY --chown=9 a /2\nCOPY --chown=10:11 d /3/\nCOPY --chown=12:13 d /n\n",
    ),
    "archives": (
        (
            "mkdir t; echo x > t/f; chmod 640 t/f; ln -s f t/l; tar cf t.tar t; tar czf t.tgz t; "
            "tar cJf t.txz t; gzip -c t/f > f.gz; : > empty.tar; tar cf o.tar --owner=5 --group=6 t"
        ),
        (
            "ADD t.tar /a\nADD t.tgz t.txz /b/\nADD f.gz /c/\nADD empty.tar /d/\nADD o.tar /e\n"
            "ADD t /h\nADD t/f /i/\n"
        ),
    ),
    "an archive over what is there": (
        "mkdir -p t/d t/l; echo x > t/d/f; echo y > t/l/g; tar cf t.tar -C t .",
        (
            "RUN mkdir -p /m/d /m/real; echo old > /m/d/f; echo keep > /m/d/k; ln -s real /m/l\n"
            "ADD t.tar /m\n"
        ),
    ),
    "the ignore file": (
        (
            "echo a > a; echo b > b.log; mkdir -p n/m; echo c > n/m/c; echo k > n/keep; "
            "printf '*.log\\nn\\n!n/keep\\nDockerfile\\n.dockerignore\\n' > .dockerignore"
        ),
        "COPY . /c/\n",
    ),
    "removals and directories that are hidden": (
        "true",
        "RUN rm -rf /etc/nsswitch.conf /root && mkdir /root && echo new > /root/new\n",
    ),
}


@pytest.fixture(scope="module")
def dockerd(busybox_archive: Path) -> Iterator[Dockerd]:
    with Dockerd(Path("/usr/sbin/runc"), busybox_archive) as caller:
        yield caller


def layers(archive: Path) -> list[Layer]:
    """Return the content of each layer above the base, in order."""
    result = []
    with tarfile.open(archive) as whole:
        manifest = whole.extractfile("manifest.json")
        assert manifest is not None
        for name in json.load(manifest)[0]["Layers"][1:]:
            held = whole.extractfile(name)
            assert held is not None
            with tarfile.open(fileobj=io.BytesIO(held.read())) as tar:
                layer = {m.name.strip("/"): _facts(m) for m in tar}
            if layer:
                result.append(layer)
    return result


def _facts(member: tarfile.TarInfo) -> tuple[object, ...]:
    if "/.wh." in f"/{member.name}":
        return ("whiteout",)
    size = member.size if member.isreg() else 0
    time = member.mtime if member.mtime < OLD else "young"
    owner = (member.uid, member.gid)
    return (member.type, oct(member.mode), owner, member.linkname, size, time)


@pytest.mark.parametrize("kind", CONTEXTS)
def test_layers_equal_those_of_docker(
    dockerd: Dockerd, jaula: Run, busybox: str, tmp_path: Path, kind: str
) -> None:
    script, text = CONTEXTS[kind]
    context = tmp_path / "context"
    context.mkdir()
    subprocess.run(["sh", "-ec", script], cwd=context, check=True)
    (context / "Dockerfile").write_text(f"FROM busybox\n{text}")
    theirs, ours = tmp_path / "theirs.tar", tmp_path / "ours.tar"
    words = dockerd.words("build", "-q", "--network", "none", "-t", "same", str(context))
    variables = dockerd.environment()
    subprocess.run(
        dockerd.namespaces.enter(words), env=variables, check=True, capture_output=True, timeout=120
    )
    dockerd("save", "-o", str(theirs), "same")
    done = jaula("build", "-q", "--network", "none", "-t", "same", str(context))
    assert done.returncode == 0, done.stderr
    assert jaula("save", "-o", str(ours), "same").returncode == 0
    assert layers(ours) == layers(theirs)
