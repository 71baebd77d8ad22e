"""Kubernetes' Container Runtime Interface (CRI), version 1, served by the engine.

:mod:`.server` accepts connections of kubelet and crictl. :mod:`.runtime_service` and
:mod:`.image_service` decode a request, call the engine and encode its answer. An engine loads this
package only if it has a CRI socket.
"""
