"""The configuration: agent.yaml and the files that it names. `python -m iot_agent.config` reads them for the daemon."""
