"""What a process runs on: hosts, devices, caches, files and messages."""
