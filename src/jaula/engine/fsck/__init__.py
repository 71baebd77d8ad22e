"""``system check``: compare the state on disk and on the host with the records, and repair it.

Each kind of object has a module with a function that yields findings. A check only reads and runs
in a thread, with copies of what the event loop owns. A finding may have a repair that loses no
data: it removes what no object uses, or recreates what can be made from existing data.
"""
