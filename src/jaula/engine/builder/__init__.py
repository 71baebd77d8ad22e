"""Building images: a Dockerfile's plan is carried out, stage by stage, in confined containers.

:mod:`.builds` is the use case, :mod:`.build` one build, :mod:`.stage` one stage of it. What an
instruction means is :mod:`jaula.images.build`'s; what the next build need not do again is kept by
:mod:`.cache`.
"""
