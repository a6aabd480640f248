"""A web server for files of a folder, with range requests, in a thread of the test."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class _Handler(SimpleHTTPRequestHandler):
    folder: Path
    ranges: bool
    requests: list[str]

    protocol_version = "HTTP/1.1"

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments, directory=str(self.folder))  # type: ignore[arg-type]

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing is written to the terminal."""

    def do_GET(self) -> None:
        path = self.folder / self.path.strip("/")
        self.requests.append(self.path)
        if "slow" in self.path:
            time.sleep(3)
        if "secret" in self.path:
            self.send_error(403, "Forbidden")
            return
        asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not self.ranges or asked is None or not path.is_file():
            super().do_GET()
            return
        content = path.read_bytes()
        first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
        if first >= len(content):
            self.send_error(416)
            return
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        with suppress(OSError):  # the client of a slow answer has gone
            self.wfile.write(content[first : last + 1])

    def send_head(self):  # type: ignore[no-untyped-def]
        if "secret" in self.path:
            self.send_error(403, "Forbidden")
            return None
        return super().send_head()

    def end_headers(self) -> None:
        if self.ranges:
            self.send_header("Accept-Ranges", "bytes")
        super().end_headers()


@contextmanager
def served(folder: Path, *, ranges: bool = True) -> Iterator[str]:
    """The URL under which the files of `folder` are."""
    handler = type("Handler", (_Handler,), {"folder": folder, "ranges": ranges, "requests": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
