"""The token's process with a planted bug: it asks for a key that may leave the token."""

import sys

from pkcs11 import Attribute

from iot_agent.keys import pkcs11_helper

pkcs11_helper.PRIVATE[Attribute.EXTRACTABLE] = True

if __name__ == "__main__":
    sys.exit(pkcs11_helper.main())
