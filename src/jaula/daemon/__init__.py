"""``jaula daemon``: the composition root (:mod:`~jaula.daemon.main`) and the configuration."""
