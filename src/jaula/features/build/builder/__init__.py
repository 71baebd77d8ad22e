"""The builder: runs a Dockerfile, stage by stage, in confined containers.

:mod:`.service` has the use cases, :mod:`.build` is one build and :mod:`.stage` is one stage of it.
:mod:`jaula.features.build.files` defines what an instruction means. :mod:`.cache` stores the steps
that the next build can reuse.
"""
