"""The observer: a process of the engine that reads the kernel for views of many containers.

The engine starts it for the first view (``GET /jaula/observe``) and ends it when none is left. So
neither the engine's event loop nor its memory pays for checks and samples, and any number of
viewers costs what one costs.

* :mod:`~jaula.features.verify.observer.main` has the loop: rows of ``verify``, again when the
  kernel reports a change, and samples of resource usage.
* :mod:`~jaula.features.verify.observer.samples` has the samples and their history.

Standard input has requests, standard output documents; both are JSON lines. The observer ends at
the end of its input.
"""
