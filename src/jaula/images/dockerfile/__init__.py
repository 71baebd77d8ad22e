"""The Dockerfile language: from text to frozen instructions and the graph of stages.

Source: the Dockerfile reference. This package reads no file, no clock and no network.
"""
