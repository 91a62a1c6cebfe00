"""A proxy between clients and a broker that knows where requests and responses begin, so that one
response can be lost.
"""

import socket
import struct
import threading

PRODUCE = 0
ADD_PARTITIONS_TO_TXN = 24
END_TXN = 26
# Behind the last record batch of a produce request there are a few bytes of empty tags at most:
# this far from its end is a record.
IN_RECORDS = 12


class Proxy:
    """Listens on loopback and forwards to `target`, an address that may be set later; connects
    nobody until then.

    `lose_responses(n)`: the next n produce requests reach the broker, and their responses get lost,
    with the connection.

    `hold()`: no request goes on, until `release(…)` says what becomes of the next produce requests,
    one after the other: "pass", "corrupt" (a bit is changed, and the broker refuses it for its
    checksum), "lose" (its response, and the connection) or "drop" (it goes no further, and the
    connection is lost).

    `keep(api_key)`: the next request of that kind goes no further, and its connection is lost.
    `deliver_kept()` sends it to the broker, late, as a network does that had it in a buffer.
    """

    def __init__(self, target=None, host="127.0.0.1"):
        self.target = target
        self.lost = 0
        self._losing = 0
        self._fates = []
        self._keeping = None
        self._kept = None
        self._flowing = threading.Event()
        self._flowing.set()
        self._lock = threading.Lock()
        self._open = set()
        self._listener = socket.create_server((host, 0))
        self.address = self._listener.getsockname()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def lose_responses(self, count):
        with self._lock:
            self._losing = count

    def hold(self):
        self._flowing.clear()

    def release(self, *fates):
        with self._lock:
            self._fates = list(fates)
        self._flowing.set()

    def keep(self, api_key):
        with self._lock:
            self._keeping, self._kept = api_key, None

    def has_kept(self):
        return self._kept is not None

    def deliver_kept(self):
        """The broker's response to it, without its length and correlation id."""
        with socket.create_connection(self.target) as far, far.makefile("rb") as answer:
            far.sendall(self._kept)
            (size,) = struct.unpack(">i", answer.read(4))
            return answer.read(size)[4:]

    def cut(self):
        """Close all connections; new ones are served."""
        with self._lock:
            for connection in self._open:
                self._shut(connection)

    def close(self):
        self.release()
        self._shut(self._listener)
        self._listener.close()
        self.cut()
        self._thread.join(10)

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
                back = threading.Thread(
                    target=self._pump,
                    args=(far, near, lambda frame: self._response(frame, losing)),
                    daemon=True,
                )
                back.start()
                self._pump(near, far, lambda frame: self._request(frame, losing))
                back.join()
                with self._lock:
                    self._open -= pair

    def _pump(self, source, target, passes):
        """Forward what `passes` makes of each frame, until that is None; then the connection is
        over, both ways.
        """
        buffered = b""
        try:
            while read := source.recv(1 << 16):
                buffered += read
                while len(buffered) >= 4 and len(buffered) >= (
                    size := 4 + struct.unpack(">i", buffered[:4])[0]
                ):
                    frame, buffered = passes(buffered[:size]), buffered[size:]
                    if frame is None:
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
            if api_key == self._keeping:
                self._keeping, self._kept = None, frame
                return None
        if api_key != PRODUCE:
            return frame
        self._flowing.wait()
        with self._lock:
            fate = self._fates.pop(0) if self._fates else "pass"
            if fate == "drop":
                return None
            if fate == "lose":
                losing.add(correlation)
            elif self._losing:
                self._losing -= 1
                losing.add(correlation)
        return (
            frame
            if fate != "corrupt"
            else frame[:-IN_RECORDS] + bytes([frame[-IN_RECORDS] ^ 1]) + frame[1 - IN_RECORDS :]
        )

    def _response(self, frame, losing):
        if struct.unpack_from(">i", frame, 4)[0] not in losing:
            return frame
        with self._lock:
            self.lost += 1
        return None


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
