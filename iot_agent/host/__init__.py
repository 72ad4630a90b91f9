"""The machine: service manager, journal, signals, control socket, child processes. Knows `core` only."""
