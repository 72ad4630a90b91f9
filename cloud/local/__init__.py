"""The local cloud: an off-the-shelf AWS emulator on this machine's loopback, plus the JITP step it lacks.

`python -m cloud.local up --dir DIR` runs it by hand; `LocalCloud(DIR)` is the same for tests and the demo. All but
`emulator` and `jitp`, which run inside the emulator, is standard library only, so any environment can import it.
"""

from cloud.common.local_endpoint import Description
from cloud.local.handle import LocalCloud, LocalCloudError

__all__ = ["Description", "LocalCloud", "LocalCloudError"]
