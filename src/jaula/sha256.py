"""SHA-256 of documents, without OpenSSL.

``hashlib`` maps libcrypto into the process, which is 5 MB of an engine's resident memory. The
interpreter has an implementation of its own. It takes 4 microseconds for a kilobyte, where OpenSSL
takes 0.8. So files and streams are hashed with ``hashlib``, which is imported there.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import sha256 as sha256
elif sys.version_info >= (3, 12):
    from _sha2 import sha256 as sha256
else:
    from _sha256 import sha256 as sha256
