"""The bodies of the commands, and their shared flags."""
