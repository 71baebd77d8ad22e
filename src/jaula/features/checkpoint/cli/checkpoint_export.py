"""``jaula checkpoint export``."""

from __future__ import annotations

from base64 import b64encode

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Flag, Options
from jaula.cli.images import save
from jaula.cli.main import Settings
from jaula.features.checkpoint.cli import request as checkpoint


def run(options: Options) -> int:
    """Write the archive, signed if a key is given."""
    container, name = options.arguments
    client = Client(Settings.host)
    base = f"/jaula/containers/{quote(container)}"
    query = checkpoint.query(options)
    if options.text("key"):
        from jaula import feature

        feature.require("trust", "checkpoint export --key")
        from jaula.features.trust.cli import keys as trust

        trust.enable()
        key = trust.private_key(options.text("key"))
        manifest = client.open("GET", f"{base}/checkpoint-manifest/{quote(name)}", query)
        signature = key.sign(b"".join(manifest.chunks()))
        query += (("signature", b64encode(signature).decode()),)
    response = client.open("GET", f"{base}/checkpoint-archive/{quote(name)}", query)
    save.write(response.chunks(), options.text("output"), "export")
    return 0


COMMAND = Command(
    "[OPTIONS] CONTAINER CHECKPOINT",
    "Export a checkpoint as a tar archive (streamed to STDOUT by default)",
    run,
    flags=(
        checkpoint.DIRECTORY,
        Flag("key", "k", "string", "Sign with this private key file", completes="file"),
        Flag("output", "o", "string", "Write to a file, instead of STDOUT", completes="file"),
    ),
    min_args=2,
    max_args=2,
    description=(
        "The archive has the memory of the container, so its secrets too. The engine that wrote it "
        "accepts it. Another engine accepts it if it is signed (--key) by a key that its policy "
        "names in the table [checkpoints]. The client signs; the key is not sent. The layout is "
        "podman's, with a manifest in addition."
    ),
    examples=(
        ("Keep a snapshot elsewhere", "jaula checkpoint export -o web-warm.tar web warm"),
        ("Sign it for another host", "jaula checkpoint export -k team.key -o web.tar web warm"),
    ),
    see_also=("checkpoint import", "snapshot", "trust generate-key"),
    completes="container",
)
