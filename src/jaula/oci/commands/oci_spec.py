"""``spec``: write a new ``config.json``."""

from __future__ import annotations

import os

from jaula.errors import Conflict, InvalidRequest, NotFound
from jaula.oci.args import SWITCH, VALUE, CommandArgs
from jaula.oci.bundle_documents import CONFIG
from jaula.oci.default_spec import template
from jaula.spec import fast_json
from jaula.spec.runtime_spec import encode

FLAGS = {"bundle": VALUE, "b": "bundle", "rootless": SWITCH}
USAGE = "[--bundle DIRECTORY] [--rootless]"


def run(args: CommandArgs) -> int:
    """Write the default spec into the bundle.

    :raises Conflict: when the bundle has a config.json.
    :raises NotFound: when the bundle does not exist.
    """
    if args.arguments:
        raise InvalidRequest(f'"spec" takes no argument, {len(args.arguments)} given')
    spec = template(rootless=args.options.on("rootless"), uid=os.geteuid(), gid=os.getegid())
    document = fast_json.decode(encode(spec))
    document["process"].setdefault(
        "user", {"uid": 0, "gid": 0}
    )  # a default, listed so that it can be edited
    document = {"ociVersion": document.pop("ociVersion"), **document}
    text = fast_json.pretty(document, "\t")
    path = os.path.join(args.options.get("bundle") or ".", CONFIG)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o644)
    except FileExistsError:
        raise Conflict(f"file {path} exists", hint="remove it first") from None
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"{path}: {(error.strerror or '').lower()}") from None
    with os.fdopen(fd, "wb") as file:
        file.write(f"{text}\n".encode())
    return 0
