"""The engine as one caller may use it: authorized, and audited if it changes state.

A class here has the methods of one service of the engine. It passes on the very value that it has
authorized.
"""
