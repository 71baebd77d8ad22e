"""``jaula daemon``: start-up (:mod:`~jaula.daemon.main`), the main loop and the configuration."""
