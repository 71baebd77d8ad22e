"""What an engine without CRI does not import."""

from __future__ import annotations

import subprocess
import sys


def test_an_engine_without_pods_loads_nothing_of_them() -> None:
    program = (
        "import sys, jaula.daemon.serve, jaula.engine.engine;"
        "names = ('jaula.features.kubernetes.cri',"
        "'jaula.features.kubernetes.pods.sandbox_network', 'google.protobuf', 'h2', 'tarfile');"
        "print([name for name in names if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done
