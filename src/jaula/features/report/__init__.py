"""The report of one container: what it did, what it may do, the proof, and the audit, on one page.

:mod:`~jaula.features.report.container_report` has the parts, each of which may be missing.
:mod:`~jaula.features.report.activity` summarizes records, :mod:`~jaula.features.report.page`
renders the page.
"""
