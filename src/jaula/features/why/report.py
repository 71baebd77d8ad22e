"""The report of ``jaula why``: text or JSON. Pure."""

from __future__ import annotations

import textwrap

import msgspec

from jaula.features.why.diagnosis import Diagnosis, Operation, Report
from jaula.features.why.layers import Explanation

_OPERATIONS = 4  # operations of one diagnosis that the text names
_OBJECT = 60  # characters
_WIDTH = 96
_LABEL = 12


def to_json(report: Report) -> str:
    """Return the document of a report."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode()


def to_text(report: Report, *, with_harmless: bool = False) -> str:
    """Return a report for people: one block for each distinct refusal."""
    lines = [plain(f"{report.container}: {report.state}")]
    shown = report.diagnoses + (report.harmless if with_harmless else ())
    for diagnosis in shown:
        lines += ["", *_block(diagnosis)]
    if not shown:
        lines += ["", "  nothing was refused" if report.traced else "  no refusal is known"]
    if report.log:
        lines += ["", "last lines of the log:"]
        lines += ["  " + plain(line) for line in report.log.splitlines()]
    if notes := _notes(report, shown, with_harmless=with_harmless):
        lines += ["", *notes]
    return "\n".join(lines)


def _notes(report: Report, shown: tuple[Diagnosis, ...], *, with_harmless: bool) -> list[str]:
    notes = list(report.notes)
    if any(each.explanation.in_profile for each in shown):
        notes.append("to test changes of the profile: jaula harden check FILE CONTAINER")
    if report.harmless and not with_harmless:
        number = sum(each.count for f in report.harmless for each in f.operations)
        notes.append(f"{number} refusals that programs expect are not shown (--all)")
    return [f"note: {plain(note)}" for note in notes]


def to_block(diagnosis: Diagnosis) -> str:
    """Return one diagnosis for people."""
    return "\n".join(_block(diagnosis))


def to_summary(report: Report) -> str:
    """Return a line for each diagnosis of a report whose blocks were printed before."""
    if not report.diagnoses:
        return to_text(report)
    lines = [plain(f"{report.container}: {report.state}"), "", "   TIMES  LAYER"]
    for each in report.diagnoses:
        count = sum(operation.count for operation in each.operations)
        explanation = each.explanation
        remedy = explanation.flag or explanation.in_profile or explanation.advice
        first = _operation(msgspec.structs.replace(each.operations[0], count=1))
        others = len(each.operations) - 1
        more = f" and {others} more" if others else ""
        lines.append(f"{count:>8}  {explanation.layer}: {first}{more}")
        if remedy:
            lines.append(plain(f"          {remedy}"))
    lines += ["", *_notes(report, report.diagnoses, with_harmless=False)]
    return "\n".join(lines).rstrip()


def _block(diagnosis: Diagnosis) -> list[str]:
    explanation = diagnosis.explanation
    lines = [f"  {_operation(each)}" for each in diagnosis.operations[:_OPERATIONS]]
    if len(diagnosis.operations) > _OPERATIONS:
        lines.append(f"  and {len(diagnosis.operations) - _OPERATIONS} other operations")
    for label, text in _rows(explanation):
        wrapped = textwrap.wrap(
            plain(text), _WIDTH - 4 - _LABEL, break_long_words=False, break_on_hyphens=False
        ) or [""]
        lines.append(f"    {label:<{_LABEL}}{wrapped[0]}")
        lines += [" " * (4 + _LABEL) + each for each in wrapped[1:]]
    return lines


def _rows(explanation: Explanation) -> list[tuple[str, str]]:
    rows = [
        ("refused by", f"{explanation.layer}: {explanation.rule}"),
        ("proof", explanation.proof),
    ]
    if explanation.flag:
        rows.append(("allow with", explanation.flag))
    if explanation.in_profile:
        rows.append(("in profile", explanation.in_profile))
    if explanation.flag or explanation.in_profile:
        rows.append(("gives away", explanation.gives_away))
    if explanation.advice:
        rows.append(("advice" if not explanation.flag else "instead", explanation.advice))
    return rows


def _operation(operation: Operation) -> str:
    name = operation.object
    if len(name) > _OBJECT:
        name = name[: _OBJECT - 1] + "…"
    call = f"{operation.call} {name}".strip()
    times = f", {operation.count} times" if operation.count > 1 else ""
    return plain(f"{call}: {operation.errno} ({operation.program}{times})")


def plain(text: str) -> str:
    """Return a text whose control characters are escapes."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
