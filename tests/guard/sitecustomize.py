"""Read by every Python process that the tests start, through PYTHONPATH: no connection leaves the machine.

Attempts fail, and are noted in the file that SDS3D_NETWORK_LOG names, also where the code swallows the error.
"""

import ipaddress
import os
import socket

LOG = "SDS3D_NETWORK_LOG"


def is_local(address):
    """True for Unix sockets and the addresses of this machine."""
    if not isinstance(address, tuple) or address[0] in ("localhost", "", None):
        return True
    try:
        found = ipaddress.ip_address(address[0])
    except ValueError:
        return False
    if found.is_loopback:
        return True
    try:  # only an address of one's own can be bound
        with socket.socket(socket.AF_INET if found.version == 4 else socket.AF_INET6) as probe:
            probe.bind((address[0], 0))
    except OSError:
        return False
    return True


def note(address):
    if os.environ.get(LOG):
        with open(os.environ[LOG], "a", encoding="utf-8") as file:
            file.write(f"{os.getpid()} {address!r}\n")


def guarded(original):
    def connect(self, *args):
        if not is_local(args[-1]):
            note(args[-1])
            raise OSError(f"the tests run without network, and this one asked for {args[-1]}")
        return original(self, *args)

    return connect


def install():
    for name in ("connect", "connect_ex", "sendto"):
        setattr(socket.socket, name, guarded(getattr(socket.socket, name)))
    lookup = socket.getaddrinfo

    def getaddrinfo(host, *args, **kwargs):
        if host == socket.gethostname() or is_local((host,)):  # asked of /etc/hosts alone
            return lookup(host, *args, **kwargs)
        note(host)
        raise socket.gaierror(f"the tests run without network, and this one looked up {host!r}")

    socket.getaddrinfo = getaddrinfo


if os.environ.get(LOG):
    install()
