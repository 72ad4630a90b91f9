"""The rules and the data, pure: no clock, file, socket or log. Every other room imports this one; it imports none."""
