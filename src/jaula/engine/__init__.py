"""The use cases: what a client may ask of jaula, one module per noun.

:class:`jaula.engine.engine.Engine` joins them. The engine decides and keeps the books; every
effect on the kernel belongs to a part below it.
"""
