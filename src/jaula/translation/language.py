"""The language that the environment asks for.

Source: "Locale Environment Variables" and "The LANGUAGE variable" in the manual of GNU gettext.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

ENGLISH = "en"
LANGUAGES = (ENGLISH, "es")


def choose(variable: Callable[[str], str]) -> str:
    """Return the language, one of ``LANGUAGES``, for the environment ``variable``. Pure.

    ``variable`` returns the value of a name, or an empty string. LC_ALL takes precedence over
    LC_MESSAGES and LANG. LANGUAGE is a list, and is ignored in the locale C, as in gettext.
    """
    locale = variable("LC_ALL") or variable("LC_MESSAGES") or variable("LANG")
    if locale in ("", "C", "POSIX"):
        return ENGLISH
    for name in [word for word in variable("LANGUAGE").split(":") if word] or [locale]:
        if known(name):
            return known(name)
    return ENGLISH


def known(name: str) -> str:
    """Return the language of a locale, such as es_MX.UTF-8; '' if there is none. Pure."""
    language = name.partition(".")[0].partition("@")[0].partition("_")[0].lower()
    if language in ("c", "posix"):
        return ENGLISH
    return language if language in LANGUAGES else ""
