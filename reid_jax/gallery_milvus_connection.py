"""The connection of a gallery to Milvus, and errors of one line."""

import collections
import contextlib
import fcntl
import logging
import os
import pathlib
import re
import threading
from collections.abc import Iterator
from typing import Any

from reid_jax.runtime.files import local_path
from reid_jax.runtime.messages import shown

_INSTALL = "python -m pip install -e '.[milvus]', in the checkout"
# How many connections of this process have an embedded database open, by its path.
_open: collections.Counter[str] = collections.Counter()
_lock = threading.Lock()


class Connection:
    """A client of a server, or of an embedded database, which it opens.

    Attributes:
        client: pymilvus' client.
        embedded: whether the database is embedded.
        shown: the path or the address without its password, for messages.

    Raises:
        ImportError: pymilvus, or for an embedded database milvus-lite, is not installed.
        OSError: there is no server, it refuses the password, or the database cannot be opened.
        ValueError: the path does not end in .db.
    """

    def __init__(self, uri: str, token: str):
        self.embedded = "://" not in uri
        self.shown = shown(without_password(uri))
        self._path: str | None = None
        _import(self.embedded)
        with _lock:
            if not self.embedded:
                self.client = _server(uri, token, self.shown)
            else:
                self.client = _database(uri)
                self._path = os.path.realpath(os.path.expanduser(uri))
                _open[self._path] += 1

    def close(self) -> None:
        """End the connection. Another process may open an embedded database after the last one."""
        self.client.close()
        path, self._path = self._path, None
        with _lock:
            if path is not None:
                _open[path] -= 1
                if not _open[path]:
                    from milvus_lite.server_manager import server_manager_instance

                    server_manager_instance.release_server(path)


def without_password(address: str) -> str:
    """An address without user and password, for messages; a path stays."""
    return re.sub(r"://[^/]*@", "://", address)


@contextlib.contextmanager
def one_line(place: str) -> Iterator[None]:
    """Raise OSError of one line for errors of Milvus and of its connection."""
    import grpc
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except (MilvusException, grpc.RpcError) as error:
        raise OSError(f"{place}: {_line(error)}") from None


def _import(embedded: bool) -> None:
    try:
        import pymilvus  # noqa: F401

        if embedded:
            import milvus_lite  # noqa: F401
    except ImportError as error:
        raise ImportError(f"MilvusGallery needs {error.name}: {_INSTALL}") from None
    # They print tracebacks of errors that are raised, or that the client expects.
    for library in ("pymilvus", "milvus_lite", "grpc._server"):
        logging.getLogger(library).setLevel(logging.CRITICAL)


def _server(uri: str, token: str, address: str) -> Any:
    """Connect to a server."""
    import grpc
    import pymilvus

    try:
        return pymilvus.MilvusClient(uri, token=token, timeout=10)
    except (pymilvus.exceptions.MilvusException, grpc.RpcError) as error:
        cause = error if isinstance(error, grpc.RpcError) else error.__cause__
        if isinstance(cause, grpc.RpcError) and cause.code() == grpc.StatusCode.UNAUTHENTICATED:
            raise PermissionError(
                f"the Milvus server at {address} refuses the user or the password: pass "
                "token='USER:PASSWORD', or write http://USER:PASSWORD@HOST:PORT"
            ) from None
        raise ConnectionError(f"no Milvus server at {address}: {_line(error)}") from None


def _database(uri: str) -> Any:
    """Open an embedded database."""
    import pymilvus

    path = pathlib.Path(local_path(uri, "the Milvus database"))
    if path.suffix != ".db":
        raise ValueError(
            f"the Milvus database {shown(uri)} is neither the address of a server, such as "
            "http://localhost:19530, nor a path that ends in .db"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Without links, because a database that is open by another path counts as held.
        return pymilvus.MilvusClient(os.path.realpath(path), timeout=10)
    except pymilvus.exceptions.MilvusException as error:
        if _is_held(path):
            raise OSError(
                f"another process holds the Milvus database {shown(path)}: close it there, or run "
                "a server for several processes"
            ) from None
        raise OSError(f"{shown(path)} is no Milvus database: {_line(error)}") from None


def _is_held(path: pathlib.Path) -> bool:
    """Whether a process has an embedded database open."""
    try:
        with (path / "LOCK").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _line(error: Any) -> str:
    """The message of an error of pymilvus or of gRPC."""
    text = getattr(error, "message", None) or getattr(error, "details", lambda: error)()
    return " ".join(str(text).split())
