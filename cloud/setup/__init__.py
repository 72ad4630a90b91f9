"""The implementation of cloud/setup.sh: create the stack and its two CAs, prepare devices, remove everything.

Each command may be interrupted anywhere and run again: it finds what exists and does the rest.
"""
