"""``jaula commit``."""

from __future__ import annotations

from jaula.cli.client.api_client import Client
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.images import pull_progress
from jaula.cli.main import Settings
from jaula.cli.output.progress_line import Progress


def run(options: Options) -> int:
    """Create an image from a container and print its id."""
    container, *names = options.arguments
    repository, tag = pull_progress.split_reference(names[0]) if names else ("", "")
    query = [
        ("container", container),
        ("repo", repository),
        ("tag", tag),
        ("author", options.text("author")),
        ("comment", options.text("message")),
        ("pause", "1" if options.on("pause", True) else "0"),
        *(("changes", change) for change in options.texts("change")),
    ]
    client = Client(Settings.host)
    with Progress("commit"):
        answer = client.document("POST", "/commit", query, {})
    print(answer["Id"])
    return 0


COMMAND = Command(
    "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    "Create a new image from a container's changes",
    run,
    flags=(
        Flag("author", "a", "string", "Author (e.g., John Hannibal Smith <hannibal@a-team.com>)"),
        Flag(
            "change",
            "c",
            "list",
            'Apply Dockerfile instruction to the created image (CMD ["sh"], ENV A=b)',
        ),
        Flag("message", "m", "string", "Commit message"),
        Flag("pause", "p", "bool", "Pause container during commit", default="true"),
    ),
    min_args=1,
    max_args=2,
    description=(
        "The image has the layers of the container's image and one more with the changes of "
        "the container, without its volumes. The container is paused during the commit, so "
        "that the files are consistent."
    ),
    examples=(
        ("Commit a container", "jaula commit -m 'with tools' box box:tools"),
        ("Change the command of the image", "jaula commit -c 'CMD [\"nginx\"]' box box:web"),
    ),
    see_also=("diff", "export", "import"),
    completes="container",
)
