"""What a device tells of itself: for people, programs and monitoring, from a running daemon or from the disk."""
