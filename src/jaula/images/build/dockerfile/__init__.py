"""The Dockerfile language: text in, frozen instructions and an order of work out.

Source: the Dockerfile reference. Nothing here reads a file, a clock or the network.
"""
