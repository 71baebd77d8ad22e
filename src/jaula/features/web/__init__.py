"""The web view: a process of its own that speaks the engine's API for users of a browser.

Nothing here is imported by the engine or by other commands. Starlette and uvicorn are the optional
extra ``web``; :mod:`jaula.features.web.web_server` and :mod:`jaula.features.web.app` are the
modules that import them.
"""
