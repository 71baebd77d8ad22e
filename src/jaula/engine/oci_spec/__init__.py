"""From a request to an OCI runtime spec: pure decisions, one module per subject.

Nothing here opens a file. What must be known about the host or the container's file system comes
in as :class:`jaula.engine.oci_spec.inputs.SpecInputs`; what comes out is a ``config.json``.
"""
