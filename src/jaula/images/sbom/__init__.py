"""The packages in an image, read from its files alone: no network, nothing of it is run.

Every file is hostile: it is reached by descriptors below the image's root, read under a limit, and
what it says is data and never a path that is followed. What cannot be read as a whole is an error,
since half a list looks like a whole one.
"""
