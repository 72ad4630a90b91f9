"""The token's process with a planted bug: it does not write down that a PIN was refused."""

import sys

from iot_agent import durable
from iot_agent.keys import pkcs11

durable.write = lambda *_arguments: None

if __name__ == "__main__":
    sys.exit(pkcs11.main())
