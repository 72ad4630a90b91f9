"""The local cloud: an AWS emulator on this machine's loopback, plus just-in-time provisioning, which it lacks.

`python -m cloud.local up --dir DIR` runs it by hand; tests and the demo use `LocalCloud(DIR)`. Everything except
`emulator` and `jitp`, which run inside the emulator, needs only the standard library.
"""

from cloud.common.local_endpoint import Description
from cloud.local.handle import LocalCloud, LocalCloudError

__all__ = ["Description", "LocalCloud", "LocalCloudError"]
