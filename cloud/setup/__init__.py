"""What stands behind cloud/setup.sh: make the stack and its two CAs, prepare a device, take everything away again.

Each command may be stopped anywhere and run again: it looks at what is there and does the rest.
"""
