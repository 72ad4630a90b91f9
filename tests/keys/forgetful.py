"""The token's process with a planted bug: it does not write down that a PIN was refused."""

import sys

from iot_agent.keys import pkcs11_helper
from iot_agent.storage import atomic

atomic.write = lambda *_arguments: None

if __name__ == "__main__":
    sys.exit(pkcs11_helper.main())
