"""The engine's firewall rules on a host whose administrator reloads the firewall."""

from __future__ import annotations

import subprocess
import time
import urllib.error
import urllib.request

from harness.engine import PrivateEngine


def _answer(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1) as reply:
            return str(reply.read().decode())
    except (urllib.error.URLError, OSError) as error:
        return f"nothing: {error}"


def _eventually(port: int, text: str) -> str:
    answer = ""
    for _ in range(40):
        answer = _answer(port)
        if text in answer:
            break
        time.sleep(0.05)
    return answer


def test_a_published_port_answers_after_the_rules_were_deleted(
    engine: PrivateEngine, jaula, busybox
) -> None:
    serve = "mkdir /w; echo here > /w/index.html; exec httpd -f -p 80 -h /w"
    name = f"flush{engine.bridge}"
    jaula("run", "-d", "--name", name, "-p", "127.0.0.1::80", busybox, "sh", "-c", serve)
    try:
        port = int(jaula("port", name, "80").stdout.strip().rsplit(":", 1)[1])
        assert _eventually(port, "here") == "here\n"
        table = f"jaula_{engine.bridge}"
        subprocess.run(["nft", "delete", "table", "ip", table], check=True)
        assert _eventually(port, "here") == "here\n"
        tables = subprocess.run(
            ["nft", "list", "tables"], capture_output=True, text=True, check=True
        ).stdout
        assert f"table ip {table}\n" in tables
    finally:
        jaula("rm", "-f", name)
