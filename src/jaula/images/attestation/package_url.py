"""Package URLs of images. Pure.

Source: package-url/purl-spec ``docker``; moby/buildkit ``util/purl`` (its qualifiers).
"""

from __future__ import annotations

from urllib.parse import quote

from jaula.images.platform import format_platform, normalize
from jaula.images.reference import parse
from jaula.spec.image import Platform

_UNRESERVED = ":"  # of the path, besides the characters that no URL escapes


def package_url(reference: str, platform: Platform | None = None, digest: str = "") -> str:
    """Return the package URL of an image.

    Both the digest that ``reference`` has and ``digest`` become a qualifier.
    """
    name = parse(reference)
    path = "/".join(quote(part, _UNRESERVED) for part in _familiar(name.repository).split("/"))
    digest = digest or name.digest or ""
    version = f"@{quote(name.tag, _UNRESERVED)}" if name.tag else ""
    qualifiers = {"digest": digest}
    if platform is not None:
        qualifiers["platform"] = format_platform(normalize(platform))
    query = "&".join(f"{key}={quote(text, ':')}" for key, text in qualifiers.items() if text)
    return f"pkg:docker/{path}{version}" + (f"?{query}" if query else "")


def _familiar(repository: str) -> str:
    return repository.removeprefix("docker.io/").removeprefix("library/")
