"""What runs in the daemon's own process, as long as the device is on. Keys and the network are for `worker`."""
