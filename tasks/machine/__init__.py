"""This machine: its folders, disk, processes, servers, terminal.

checkout.py         the checkout that runs: its folder and its commit
child_processes.py  child processes that leave no orphans
environment.py      where results lie; telemetry off
full_disk.py        a full or unwritable disk as a clear error; two folders that change places in one step
hashing.py          sha256 of files and folders
image.py            `make image`: docker or buildah, and the push
prefect_server.py   Prefect's own server for an ad hoc run
run_logger.py       the logger of the current Prefect run
terminal.py         the last lines of a command, and its exit code
user_interfaces.py  Prefect's and MLflow's servers as child processes
"""
