"""Authorization: who may ask the engine for what.

:mod:`.policy` has the callers, the rules and the decision, as pure functions over decoded requests.
:mod:`.policy_file` parses the operator's file. :mod:`.session` is one caller with its rule, and
:mod:`.gateway` makes a session for each connection. :mod:`.api` is the engine behind these checks.
"""
