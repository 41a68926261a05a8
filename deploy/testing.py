"""What the tests of this folder share: an offline origin on loopback, and a way to count what does not hold."""

import hashlib
import struct
import subprocess
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

# Hosts of their own, so that shards have something to divide.
HOSTS = [f"127.0.0.{last}" for last in range(1, 6)]
PICTURES = 4
# A name that makes the file which the variable PWNED names, if it ever gets into a command's text.
ODD = "a 'b' \"c\" $(touch $PWNED) `touch $PWNED` ; touch $PWNED ; é"


def picture(seed: int) -> bytes:
    """A PNG, 16 by 16, of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes([seed * 37 % 256, seed * 91 % 256, seed % 256]) * 16) * 16
    header = struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Quiet(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if status != 304:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


class Origin(Quiet):
    """`/N.png` is a picture that never changes, everything else is not found."""

    def do_GET(self) -> None:
        name = self.path.removeprefix("/").removesuffix(".png")
        if not name.isdigit():
            return self.answer(404)
        body = picture(int(name))
        tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        if self.headers.get("If-None-Match") == tag:
            return self.answer(304, ETag=tag)
        self.answer(200, body, ETag=tag, Content_Type="image/png")


def serve(handler: type[Quiet], address: str, port: int = 0) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer((address, port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def origins() -> int:
    """An origin on each of the hosts; their port."""
    port = 0
    for host in HOSTS:
        port = serve(Origin, host, port).server_address[1]
    return port


def url(port: int, host: int, number: int) -> str:
    """A picture that no other URL has."""
    return f"http://{HOSTS[host]}:{port}/{host * 10 + number}.png"


def knows(program: Path, command: str) -> bool:
    return subprocess.run([program, command, "--help"], capture_output=True).returncode == 0


class Checks:
    failed = 0

    def hold(self, what: str, found, wanted, said: str = "") -> None:
        good = found == wanted
        print(f"{'ok  ' if good else 'FAIL'} {what}", flush=True)
        if not good:
            self.failed += 1
            print(f"     found  {found!r}\n     wanted {wanted!r}\n{said}", flush=True)
