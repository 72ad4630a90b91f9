"""The cloud's half of certificate rotation: the stack, its Lambda and the operator's tools."""
