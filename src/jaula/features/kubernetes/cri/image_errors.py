"""Errors about images with the status and the words that the kubelet knows.

Sources: k8s.io/cri-api ``pkg/errors``, k8s.io/cri-client ``pkg/remote_image.go``.

The kubelet knows these errors by the beginning of their text, and sees it only with the status
UNKNOWN.
"""

from __future__ import annotations

from jaula.errors import ImageMountFailed, JaulaError
from jaula.grpc.grpc_server import as_grpc_error
from jaula.grpc.grpc_status import Code, GrpcError

_SIGNATURE = "SignatureValidationFailed"
_REGISTRY = "RegistryUnavailable"
_MOUNT = "ImageVolumeMountFailed"


def pull_error(error: JaulaError) -> GrpcError:
    """Return the error of a pull with the status and the words that kubelet knows."""
    # A pull that failed has loaded these modules.
    from jaula.images.policy import ImageRefused
    from jaula.images.registry.registry_errors import (
        ConnectionLost,
        NoCredentials,
        RegistryError,
        Unreachable,
    )

    match error:
        case ImageRefused():
            return GrpcError(Code.UNKNOWN, f"{_SIGNATURE}: {error}")
        case NoCredentials():
            return GrpcError(Code.UNAUTHENTICATED, str(error))
        case Unreachable() | ConnectionLost():
            return GrpcError(Code.UNKNOWN, f"{_REGISTRY}: {error}")
        case RegistryError() if error.is_temporary:
            return GrpcError(Code.UNKNOWN, f"{_REGISTRY}: {error}")
    return as_grpc_error(error)


def container_error(error: JaulaError) -> GrpcError:
    """Return the error of the creation or the start of a container."""
    from jaula.images.policy import ImageRefused

    match error:
        case ImageRefused():
            return GrpcError(Code.UNKNOWN, f"{_SIGNATURE}: {error}")
        case ImageMountFailed():
            return GrpcError(Code.UNKNOWN, f"{_MOUNT}: {error}")
    return as_grpc_error(error)
