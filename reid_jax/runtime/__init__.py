"""The environment of a process: hosts, devices, caches, files and messages."""
