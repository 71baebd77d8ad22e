"""The packages in an image, read from its files only: no network, no program of the image is run.

All files are untrusted. They are opened by descriptors below the image's root and read under a
limit. A path in a file is data and is never opened. A database that cannot be read completely is an
error, since an incomplete list is not recognisable as one.
"""
