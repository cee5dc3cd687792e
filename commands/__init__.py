"""The bodies of the commands, and the flags that they share."""
