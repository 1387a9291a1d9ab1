"""The environment variables that torchrun sets."""

import socket


def environments(processes: int) -> list[dict[str, str]]:
    """The environment of each of so many processes, by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [world | {"RANK": rank, "LOCAL_RANK": rank} for rank in map(str, range(processes))]
