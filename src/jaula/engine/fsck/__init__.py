"""What an engine has, held against what its records say; and bringing the two together again.

One module for each kind of thing, with a function that yields findings. A check reads, and is done
in a thread: what the event loop owns is handed to it as a copy. A finding may carry a repair, which
loses nothing: it removes what nobody can use, or makes again what can be made from what is there.
"""
