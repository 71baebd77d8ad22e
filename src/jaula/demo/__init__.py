"""The guided tour: real containers, the commands of a user, and the kernel's evidence.

Each step is one file in :mod:`jaula.demo.steps`, a function that takes a
:class:`~jaula.demo.runner.TourRunner`. :mod:`jaula.demo.tour` runs them in order.
"""
