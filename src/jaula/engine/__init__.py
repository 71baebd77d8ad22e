"""The use cases of the engine: one package per noun of the API.

:class:`jaula.engine.engine.Engine` joins them. The engine decides and keeps the records; every
effect on the kernel belongs to a package below it.
"""
