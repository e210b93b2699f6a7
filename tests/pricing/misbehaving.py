"""A server on loopback that speaks HTTP as badly as a test asks it to."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Speak = Callable[[socket.socket, str], None]


class Server:
    """Answers each connection by the next of ``speakers`` (the last one again and again)."""

    def __init__(self, *speakers: Speak, context: ssl.SSLContext | None = None) -> None:
        self.heads: list[str] = []
        self.stopping = threading.Event()
        self._speakers = speakers
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self.port: int = self._listener.getsockname()[1]

    def url(self, path: str = "/prices.csv", host: str = "127.0.0.1") -> str:
        return f"{'https' if self._context else 'http'}://{host}:{self.port}{path}"

    def stop(self) -> None:
        self.stopping.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            with suppress(TimeoutError, ssl.SSLError):
                connection, _ = self._listener.accept()
                connection.settimeout(2)
                if self._context:
                    connection = self._context.wrap_socket(connection, server_side=True)
                speak = self._speakers[min(len(self.heads), len(self._speakers) - 1)]
                head = self._head(connection)
                self.heads.append(head)
                thread = threading.Thread(target=self._answer, args=(connection, speak, head))
                self._threads.append(thread)
                thread.start()

    def _head(self, connection: socket.socket) -> str:
        head = b""
        with suppress(OSError):
            while b"\r\n\r\n" not in head and (piece := connection.recv(4096)):
                head += piece
        return head.decode("latin-1")

    def _answer(self, connection: socket.socket, speak: Speak, head: str) -> None:
        with connection, suppress(OSError):
            speak(connection, head)


@contextmanager
def serving(*speakers: Speak, context: ssl.SSLContext | None = None) -> Iterator[Server]:
    server = Server(*speakers, context=context)
    try:
        yield server
    finally:
        server.stop()


def says(status: str, body: bytes = b"", *headers: str, length: int | None = None) -> Speak:
    """One whole answer; ``length`` lies about the body's."""

    def speak(connection: socket.socket, head: str) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    return speak


def raw(*pieces: bytes) -> Speak:
    """These bytes, then the end of the connection."""

    def speak(connection: socket.socket, head: str) -> None:
        for piece in pieces:
            connection.sendall(piece)

    return speak


def endless(head: bytes, piece: bytes, total: int) -> Speak:
    """A head, then ``piece`` until ``total`` bytes are sent or nobody listens any more."""

    def speak(connection: socket.socket, asked: str) -> None:
        connection.sendall(head)
        for _ in range(total // len(piece)):
            connection.sendall(piece)

    return speak


def drips(first: bytes, stopping: threading.Event) -> Speak:
    """``first`` at once, then a letter each fiftieth of a second, for ever."""

    def speak(connection: socket.socket, _: str) -> None:
        connection.sendall(first)
        while not stopping.wait(0.02):
            connection.sendall(b"x")

    return speak


def hangs(stopping: threading.Event) -> Speak:
    """Hears the question and says nothing."""

    def speak(connection: socket.socket, _: str) -> None:
        stopping.wait(10)

    return speak


def bomb(megabytes: int) -> list[bytes]:
    """The pieces of one gzip stream of zeros, made without ever unpacking it as a whole."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    start = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)  # complete in itself, so it can be repeated
    return [start, *[again] * (megabytes - 1)]


def certified(name: str, folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS context for ``name``, and the certificate file that a client must trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(2099, 1, 1, tzinfo=dt.UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "certificate.pem", folder / "key.pem"
    public.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return context, public
