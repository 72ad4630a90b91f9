"""The operator's commands: they show the fleet, and allow, renew, readmit or revoke devices."""
