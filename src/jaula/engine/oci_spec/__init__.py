"""From a resolved request to an OCI runtime spec: pure decisions, one module per subject.

No module but ``host.py`` opens a file. Facts about the host and the container's file system are in
:class:`jaula.engine.oci_spec.inputs.SpecInputs`; the result is a ``config.json``.
"""
