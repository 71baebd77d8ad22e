"""Parsers of instructions whose arguments have their own grammar."""
