"""Who may ask the engine for what. Decided by pure functions over decoded requests.

``caller`` is who asks, ``asks`` what a request wants beyond a container's defaults, ``rule`` what
somebody may want, ``policy`` which rule is whose, ``policy_file`` how an operator writes it down.
:mod:`jaula.engine.authz.gateway` holds every request against them.
"""
