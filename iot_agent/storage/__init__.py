"""What is on the disk: the record, the identities, and who may read them. Every write survives a power cut."""
