"""HTTP connections that keep to the limits: to vetted addresses only, and never for too long.

A name is resolved once and the connection goes to the address that was judged, so a name that answers
differently the second time gains nothing. Where the environment names a proxy, the proxy resolves
names, and so it decides what is reachable; addresses written as numbers are judged all the same. How
long a name takes to resolve is the system resolver's own setting.
"""

from __future__ import annotations

import functools
import http.client
import io
import ipaddress
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests
import urllib3.exceptions as wire
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from pricing.config import Fetching
from pricing.errors import FetchError

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Failure(FetchError):
    """One attempt failed. Its text holds no secret, so it may be logged."""

    def __init__(self, what: str, *, again: bool, wait: float = 0.0) -> None:
        super().__init__(what, permanent=not again)
        self.wait = wait


@dataclass(frozen=True)
class Limits:
    """What one ``get`` may take; ``deadline`` is an instant of the monotonic clock."""

    settings: Fetching
    deadline: float

    def left(self) -> float:
        """Seconds until the deadline, negative after it."""
        return self.deadline - time.monotonic()


def is_public(address: str) -> bool:
    """Say whether an IP address belongs to the open internet, also where IPv6 wraps an IPv4 one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else ip.ipv4_mapped or ip.sixtofour
        ip = inner or ip
    return ip.is_global and not ip.is_multicast


def refuse_private(host: str, addresses: list[str], limits: Limits) -> None:
    """Raise Failure when one of a host's addresses is not of the open internet."""
    private = [] if limits.settings.allow_private else [a for a in addresses if not is_public(a)]
    if private:
        what = private[0] if private[0] == host else f"{host} at {private[0]}"
        raise Failure(f"{what} is not on the open internet (allow_private would allow it)", again=False)


class Session(requests.Session):
    """A session of one attempt: no cookies and no connections outlive it."""

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.headers["User-Agent"] = limits.settings.user_agent
        self.headers["Accept-Encoding"] = "gzip"
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter(limits))

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Find none: to look further, requests would read the whole body of a redirect, however large."""
        return None


class _Adapter(HTTPAdapter):
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        super().__init__()

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        guarded = {HTTPConnection: _Plain, HTTPSConnection: _Secure}.get(pool.ConnectionCls)
        if guarded:  # others (SOCKS) know how to reach their proxy, and ours would not
            pool.ConnectionCls = functools.partial(guarded, limits=self._limits)
        return pool


class _Plain(HTTPConnection):
    def __init__(self, *args: Any, limits: Limits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self.response_class = functools.partial(_Response, limits=limits)  # type: ignore[assignment]

    def connect(self) -> None:
        if self.proxy is not None:
            super().connect()
            return
        name = self.host
        addresses = self._addresses(name)
        try:
            for address in addresses:
                self.host = address
                self.timeout = max(0.001, min(self._limits.settings.connect_seconds, self._limits.left()))
                try:
                    super().connect()
                    return
                except (wire.NewConnectionError, wire.ConnectTimeoutError):
                    if address == addresses[-1]:
                        raise
        finally:
            self.host = name

    def _addresses(self, name: str) -> list[str]:
        try:
            found = socket.getaddrinfo(name.strip("[]"), self.port, type=socket.SOCK_STREAM)
        except OSError:
            raise Failure(f"the host name {name} does not resolve", again=True) from None
        except UnicodeError:
            raise Failure(f"{name} is not a host name", again=False) from None
        addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
        refuse_private(name, addresses, self._limits)
        return addresses


class _Secure(_Plain, HTTPSConnection):
    def connect(self) -> None:
        if self.proxy is None:
            self.server_hostname = self.server_hostname or self.host  # the name is certified, not the address
        super().connect()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, limits: Limits, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Timed(self.fp.detach(), sock, limits))


class _Timed(io.RawIOBase):
    """A socket's bytes, each wait bounded by the read limit and by what is left of the total.

    A plain read limit starts anew with each byte, so one byte a second would hold us for ever, in the
    headers as in the body.
    """

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, limits: Limits) -> None:
        self._raw, self._sock, self._limits = raw, sock, limits

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._limits.left()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(min(left, self._limits.settings.read_seconds))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


@contextmanager
def explained(limits: Limits) -> Iterator[None]:
    """Turn what the libraries raise into Failure: their texts repeat the address, secrets too."""
    try:
        yield
    except Failure:
        raise
    except (requests.RequestException, wire.HTTPError, http.client.HTTPException, OSError, UnicodeError) as error:
        what, again = _why(error, limits)
        raise Failure(what, again=again) from None


def _why(error: BaseException, limits: Limits) -> tuple[str, bool]:
    """Say what went wrong, and whether another attempt may mend it."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({cause.verify_message})", False
    if isinstance(error, ValueError):
        return f"the address or a header cannot be sent ({type(error).__name__})", False
    if limits.left() <= 0:
        return f"not finished within {limits.settings.total_seconds:g} s in all", True
    for cause in causes:
        if isinstance(cause, http.client.RemoteDisconnected):
            return "the connection was closed without an answer", True
        if isinstance(cause, OSError) and cause.strerror:
            return f"the connection failed ({cause.strerror})", True
    if any(isinstance(cause, wire.ConnectTimeoutError) for cause in causes):
        return f"no connection within {limits.settings.connect_seconds:g} s", True
    if any(isinstance(cause, TimeoutError) for cause in causes):
        return f"nothing came for {limits.settings.read_seconds:g} s", True
    if any(isinstance(cause, wire.ProtocolError) for cause in causes):
        return "the answer was cut short, or is not proper HTTP", True
    return f"the answer is not proper HTTP ({type(causes[-1]).__name__})", True


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
