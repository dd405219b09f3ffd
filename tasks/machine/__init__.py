"""This machine: its folders, disk, processes, servers, terminal."""
