"""The configuration: agent.yaml and the files that it names. Run as a program, it reads them for the daemon."""
