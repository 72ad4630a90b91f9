"""The operator's commands: who may come aboard, how the fleet is, and what to do for one device or for many."""
