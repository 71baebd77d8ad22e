"""Lengths of time in words, as Docker says them (``About a minute``).

Source: ``HumanDuration`` of docker/go-units. The engine puts the words into the states that it
lists, the command line into the ages that it shows; both import nothing else for it.
"""

from __future__ import annotations


def human(seconds: float) -> str:
    """The words for ``seconds``; what is negative (a clock was set back) counts as no time."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{int(seconds / 3600) // 24 // 365} years"
