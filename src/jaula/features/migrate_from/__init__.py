"""Take over images, volumes, networks and containers of docker or podman.

A reader (:mod:`.docker`, :mod:`.podman`) returns an :class:`.inventory.Inventory` of the source.
:mod:`.plan` decides what becomes of each object, and :mod:`.execute` carries the plan out through
jaula's API. The source is only read: its API by GET requests, its files by a read-only mount.
"""
