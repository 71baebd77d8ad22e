"""Package URLs of images. Pure.

Source: package-url/purl-spec ``docker``; moby/buildkit ``util/purl`` (its qualifiers).
"""

from __future__ import annotations

from urllib.parse import quote

from jaula.images.image_platform import format_platform, normalize
from jaula.images.reference import parse
from jaula.spec.image_documents import Platform


def package_url(reference: str, platform: Platform | None = None) -> str:
    """Return the package URL of an image; the digest of ``reference`` becomes a qualifier."""
    name = parse(reference)
    path = "/".join(quote(part, "") for part in _familiar(name.repository).split("/"))
    version = f"@{quote(name.tag, '')}" if name.tag else ""
    qualifiers = {"digest": name.digest or ""}
    if platform is not None:
        qualifiers["platform"] = format_platform(normalize(platform))
    query = "&".join(f"{key}={quote(text, '')}" for key, text in qualifiers.items() if text)
    return f"pkg:docker/{path}{version}" + (f"?{query}" if query else "")


def _familiar(repository: str) -> str:
    return repository.removeprefix("docker.io/").removeprefix("library/")
