"""What runs in the daemon's own process, for ever. Keys, certificates and the network are for `worker`."""
