"""``jaula build``: the context on its way to the engine, progress, what becomes of the image."""
