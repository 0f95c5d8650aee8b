"""Who listens where: ports that are free, and listeners that the network could reach."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

import psutil

from prefixnas.base.errors import UserError


def is_loopback(address: str) -> bool:
    """Tell whether an address, or a host's name, can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def check_port(host: str, port: int) -> None:
    """Make sure that a server could listen there.

    Raises:
        UserError: The port is in use, or not ours to take.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As the server does: connections of a former one that are closing do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen()
        except OSError as error:
            raise UserError(
                f"port {port} of {host} cannot be taken ({error.strerror}): name another, --port"
            ) from error


def listeners(processes: Iterable[psutil.Process]) -> set[tuple[str, int]]:
    """Return the addresses and ports at which the processes listen."""
    found = set()
    for process in processes:
        try:
            connections = process.net_connections(kind="inet")
        except psutil.NoSuchProcess:
            continue
        found |= {
            (connection.laddr.ip, connection.laddr.port)
            for connection in connections
            if connection.status == psutil.CONN_LISTEN
        }
    return found


def open_to_network(processes: Iterable[psutil.Process]) -> list[str]:
    """Return the listeners of the processes that are not on loopback, as `address:port`."""
    found = listeners(processes)
    return sorted(f"{host}:{port}" for host, port in found if not is_loopback(host))
