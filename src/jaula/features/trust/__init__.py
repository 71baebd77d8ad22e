"""Image signatures: keys, where registries store signatures, and the operator's policy.

Keys and signatures follow cosign's key-based scheme; no identity server is contacted. The package
``cryptography`` is imported when a key is used, not before.
"""
