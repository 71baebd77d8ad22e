"""The guided tour: real containers, the commands that a person would type, the kernel's answers.

Each step is one file in :mod:`jaula.demo.steps`, a function that takes a
:class:`~jaula.demo.runner.TourRunner`; :mod:`jaula.demo.tour` puts them in order.
"""
