"""Whose images run: signatures, where registries keep them, and the operator's rules about both.

Keys and signatures are those of cosign's key-based scheme; nothing here asks a server who somebody
is. The package ``cryptography`` is loaded when a key is used, not before.
"""
