"""Layers whose files can be decompressed one by one: eStargz and zstd:chunked."""
