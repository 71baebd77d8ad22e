"""The guided tour: real containers, the commands of a user, and the kernel's evidence.

Each step is one file in :mod:`jaula.features.demo.steps`, a function that takes a
:class:`~jaula.features.demo.runner.TourRunner`. :mod:`jaula.features.demo.tour` runs them in order.
"""
