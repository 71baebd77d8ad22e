"""The streaming server of CRI: exec, attach and port-forward over upgraded HTTP connections.

``Exec``, ``Attach`` and ``PortForward`` of CRI answer with a URL of this server. The kubelet
forwards the connection of the API server to it, and crictl connects to it.

:mod:`.server` accepts connections, checks the token of the URL and upgrades. :mod:`.remotecommand`
and :mod:`.portforward` are the protocols of Kubernetes, over :mod:`.spdy` or :mod:`.websocket`.
:mod:`.transport` has the bytes and the buffers below both. :mod:`.backend` is the interface of the
engine, and :mod:`.socket_streams` connects it to
a socket.
"""
