"""The text formats of Prometheus and OpenMetrics. Pure.

Source: "Exposition formats" of Prometheus, version 0.0.4; OpenMetrics 1.0 (draft
``prometheus/OpenMetrics``, specification); RFC 9110, 12.5.1, for ``Accept``.

Facts about the two formats: OpenMetrics names a counter without the suffix ``_total`` of its
samples. A counter of cAdvisor without that suffix has the type ``unknown`` there. A page of
OpenMetrics ends with ``# EOF``. Both formats put the samples of one name together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaula.metrics import HistogramValue

TEXT, OPENMETRICS = "text", "openmetrics"
CONTENT_TYPES = {
    TEXT: "text/plain; version=0.0.4; charset=utf-8",
    OPENMETRICS: "application/openmetrics-text; version=1.0.0; charset=utf-8",
}
MAX_VALUE = 256  # characters of a label's value; a longer one is cut
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_HELP_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n"})


class Family(NamedTuple):
    """A name with its samples, each a line that begins with the name: ``a_total{b="c"} 1``.

    ``type`` is counter, gauge or histogram.
    """

    name: str
    help: str
    type: str
    lines: Iterable[str]


def labels(pairs: Mapping[str, str]) -> str:
    """Return labels in braces; those without a value are left out."""
    text = ",".join(f'{name}="{escape(value)}"' for name, value in pairs.items() if value)
    return f"{{{text}}}" if text else ""


def escape(value: str) -> str:
    """Return a label's value, escaped, at most :data:`MAX_VALUE` characters of it.

    A lone surrogate, from a name that is not UTF-8, becomes a question mark.
    """
    if not value.isascii():
        value = value.encode("utf-8", "replace").decode("utf-8")
    return value[:MAX_VALUE].translate(_ESCAPES)


def label_name(name: str) -> str:
    """Return a container's label as the name of a label, as cAdvisor does."""
    return "container_label_" + "".join(c if c.isascii() and c.isalnum() else "_" for c in name)


def with_labels(common: str, more: Mapping[str, str]) -> str:
    """Return labels in braces with more after them."""
    added = labels(more)
    if not common or not added:
        return common or added
    return f"{common[:-1]},{added[1:]}"


def number(value: float) -> str:
    """Return a number; a whole one without a fraction."""
    return str(int(value)) if value == int(value) and abs(value) < 1 << 53 else repr(value)


def histogram_lines(
    name: str, common: str, buckets: Iterable[float], value: HistogramValue
) -> Iterator[str]:
    """Yield the samples of one series of a histogram."""
    total = 0
    for bound, count in zip((*buckets, None), value.counts, strict=True):
        total += count
        limit = "+Inf" if bound is None else repr(float(bound))
        yield f"{name}_bucket{with_labels(common, {'le': limit})} {total}\n"
    yield f"{name}_sum{common} {number(value.sum)}\n"
    yield f"{name}_count{common} {total}\n"


def encode(family: Family, format: str) -> str:
    """Return the lines of a family; '' if it has no sample."""
    name, kind, help = family.name, family.type, family.help.translate(_HELP_ESCAPES)
    title = name
    if format == OPENMETRICS:
        help = help.replace('"', r"\"")
        if kind == "counter":
            title, kind = (name[:-6], kind) if name.endswith("_total") else (name, "unknown")
    samples = "".join(family.lines)
    return samples and f"# HELP {title} {help}\n# TYPE {title} {kind}\n{samples}"


def end(format: str) -> str:
    """Return the end of a page."""
    return "# EOF\n" if format == OPENMETRICS else ""


def negotiate(accept: str) -> str:
    """Return the format that a client prefers: OpenMetrics 1.0, or text, also for any other."""
    best, weight = TEXT, 0.0
    for item in accept[:4096].split(","):
        kind, *parameters = (part.strip().lower() for part in item.split(";"))
        options = dict(part.partition("=")[::2] for part in parameters)
        try:
            quality = float(options.get("q") or 1)
        except ValueError:
            continue
        if not 0 < quality <= 1:
            continue
        format = TEXT if kind in ("text/plain", "text/*", "*/*") else ""
        version = options.get("version", "1.0.0").strip('"')
        if kind == "application/openmetrics-text" and version in ("1.0.0", "0.0.1"):
            format = OPENMETRICS
        if format and quality > weight:
            best, weight = format, quality
    return best
