"""The token's process with a planted bug: it takes every key that is called iot-agent-something for the agent's own."""

import re
import sys

from iot_agent.keys import pkcs11_helper

pkcs11_helper.OUR_LABELS = re.compile("iot-agent-.*")

if __name__ == "__main__":
    sys.exit(pkcs11_helper.main())
