"""A proxy in front of a server: takes the server away and back within milliseconds, and loses one of its answers."""

import contextlib
import socket
import threading

from testing.ports import free_port


class Gate:
    """Passes TCP connections at `url` on to `port` of this machine. Closed at first: connections are refused."""

    def __init__(self, port: int) -> None:
        self._upstream, self._port = port, free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        #: The next request with these bytes in it gets no answer.
        self._loses: bytes | None = None
        #: How many answers were lost.
        self.lost = 0

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self._port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        """Refuse connections, and break those that there are."""
        if self._listener is not None:
            _end(self._listener)
            self._listener = None
        with self._lock:
            for each in self._open:
                _end(each)
            self._open.clear()

    def lose_answer(self, request: bytes) -> None:
        """Pass on the next request that contains `request`, and break the connection when its answer comes."""
        self._loses = request

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # Of a listener that is closed.
            while True:
                client, _ = listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._upstream))
                except OSError:
                    client.close()
                    continue
                with self._lock:
                    self._open |= {client, server}
                lost = threading.Event()
                for pump in (self._requests, self._answers):
                    threading.Thread(target=pump, args=(client, server, lost), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while content := client.recv(65536):
                if self._loses is not None and self._loses in content:
                    self._loses = None
                    lost.set()
                server.sendall(content)
        self._end(client, server)

    def _answers(self, client: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while content := server.recv(65536):
                if lost.is_set():
                    self.lost += 1
                    break
                client.sendall(content)
        self._end(client, server)

    def _end(self, *connection: socket.socket) -> None:
        with self._lock:
            self._open -= set(connection)
        for each in connection:
            _end(each)


def _end(each: socket.socket) -> None:
    """Also wakes a thread that waits for it."""
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
