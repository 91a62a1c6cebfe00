"""A proxy between clients and a broker that knows where requests and responses begin, so that one response can be lost."""

import socket
import struct
import threading

PRODUCE = 0


class Proxy:
    """Listens on loopback and forwards to `target`, an address that may be set later; connects nobody until then.

    `lose_responses(n)`: the next n produce requests reach the broker, and their responses get lost, with the connection.
    """

    def __init__(self, target=None, host="127.0.0.1"):
        self.target = target
        self.lost = 0
        self._losing = 0
        self._lock = threading.Lock()
        self._open = set()
        self._listener = socket.create_server((host, 0))
        self.address = self._listener.getsockname()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def lose_responses(self, count):
        with self._lock:
            self._losing = count

    def cut(self):
        """Close all connections; new ones are served."""
        with self._lock:
            for connection in self._open:
                self._shut(connection)

    def close(self):
        self._shut(self._listener)
        self._listener.close()
        self.cut()
        self._thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    @staticmethod
    def _shut(connection):
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near):
        with near:
            try:
                far = socket.create_connection(self.target)
            except OSError:
                return
            with far:
                losing = set()  # correlation ids of requests whose response is to be lost
                pair = {near, far}
                with self._lock:
                    self._open |= pair
                back = threading.Thread(target=self._pump, args=(far, near, lambda frame: self._response(frame, losing)), daemon=True)
                back.start()
                self._pump(near, far, lambda frame: self._request(frame, losing))
                back.join()
                with self._lock:
                    self._open -= pair

    def _pump(self, source, target, passes):
        """Forward frames for as long as `passes` says so; then the connection is over, both ways."""
        buffered = b""
        try:
            while read := source.recv(1 << 16):
                buffered += read
                while len(buffered) >= 4 and len(buffered) >= (size := 4 + struct.unpack(">i", buffered[:4])[0]):
                    frame, buffered = buffered[:size], buffered[size:]
                    if not passes(frame):
                        return
                    target.sendall(frame)
        except OSError:
            pass
        finally:
            self._shut(source)
            self._shut(target)

    def _request(self, frame, losing):
        api_key, _, correlation = struct.unpack_from(">hhi", frame, 4)
        with self._lock:
            if api_key == PRODUCE and self._losing:
                self._losing -= 1
                losing.add(correlation)
        return True

    def _response(self, frame, losing):
        if struct.unpack_from(">i", frame, 4)[0] not in losing:
            return True
        with self._lock:
            self.lost += 1
        return False


class ByteProxy(Proxy):
    """Forwards whatever comes, TLS as well."""

    def _pump(self, source, target, passes):
        try:
            while read := source.recv(1 << 16):
                target.sendall(read)
        except OSError:
            pass
        finally:
            self._shut(source)
            self._shut(target)
