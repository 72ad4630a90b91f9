"""What a device reports about itself: to people, programs and monitoring, from the daemon or from the disk."""
