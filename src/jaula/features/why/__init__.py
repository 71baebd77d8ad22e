"""``jaula why``: which layer of a container refused an operation, the proof, and the remedy.

:mod:`jaula.features.why.tracer` receives refusals from the kernel,
:mod:`jaula.features.why.confinement` reads what confines the container, and
:mod:`jaula.features.why.explain` decides. It is a pure function of the two.
"""
