"""Parsers for the instructions whose arguments have a grammar of their own."""
