"""The messages of CRI version 1, and their generated module.

The names and numbers of fields are those of ``k8s.io/cri-api``, package ``runtime.v1``.
``scripts/protobuf`` writes the module from ``api.proto``.
"""
