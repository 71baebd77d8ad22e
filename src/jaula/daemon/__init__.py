"""``jaula daemon``: start-up (:mod:`~jaula.daemon.engine_main`), main loop and configuration."""
