"""Errors of the connection to Milvus are one line each; and who may open an embedded database."""

import concurrent.futures
import pathlib
import socket
import subprocess
import sys

import pytest

import reid_jax

# grpc, pandas and the embedded database.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("milvus")]


def one_line(error, message):
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_database_that_cannot_be_opened_is_one_line(tmp_path, capfd):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ConnectionError) as error:
            reid_jax.MilvusGallery(address)
    one_line(error, f"no Milvus server at '{address}': ")
    with pytest.raises(ValueError, match="'people' is neither the address of a server, such as"):
        reid_jax.MilvusGallery("people")
    (tmp_path / "file.db").write_text("text")
    with pytest.raises(OSError, match="is no Milvus database") as error:
        reid_jax.MilvusGallery(tmp_path / "file.db")
    one_line(error, "file.db' is no Milvus database: ")
    assert capfd.readouterr().err == ""


def test_a_database_that_another_process_holds_is_one_line(tmp_path):
    path = tmp_path / "held.db"
    program = (
        "import sys, pymilvus; c = pymilvus.MilvusClient(sys.argv[1])\n"
        "print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(OSError, match="another process holds") as error:
            reid_jax.MilvusGallery(path)
        one_line(error, f"another process holds the Milvus database '{path}': close it there, or")
        other.communicate()
    first, second = (reid_jax.MilvusGallery(path, name) for name in ("first", "second"))
    first.add([1.0, 2], names=["a"])
    first.close()
    first.close()
    for use in (lambda: first.search([1.0, 2]), lambda: len(first), lambda: first.add([1.0, 2])):
        with pytest.raises(ValueError, match=r"'first' of .* was closed: open it again$"):
            use()
    second.add([1.0, 2, 3], names=["b"])  # It is still open.
    with pytest.raises(ValueError, match="has the index"):
        reid_jax.MilvusGallery(path, "second", index="HNSW")
    second.close()
    program = program.replace("sys.stdin.read()", "print(c.list_collections())")
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, check=True)
    assert done.stdout == b"open\n['first', 'second']\n"


def test_a_database_may_be_open_by_two_paths(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    first = reid_jax.MilvusGallery(tmp_path / "people.db")
    second = reid_jax.MilvusGallery(tmp_path / "link" / "people.db")
    first.add([1.0, 2], names=["a"])
    first.close()
    assert second.names == ("a",)
    second.close()
    program = "import sys, reid_jax; print(reid_jax.MilvusGallery(sys.argv[1]).names)"
    command = [sys.executable, "-c", program, tmp_path / "people.db"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"('a',)\n"


def test_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "milvus_lite", None)
    with pytest.raises(ImportError, match=r"^MilvusGallery needs milvus_lite: .*\[milvus\]"):
        reid_jax.MilvusGallery("people.db")
    assert not pathlib.Path("people.db").exists()


@pytest.fixture
def refusing():
    """The address of a server that refuses every user, as Milvus does."""
    import grpc

    class Refusal(grpc.GenericRpcHandler):
        def service(self, details):
            return grpc.unary_unary_rpc_method_handler(
                lambda request, context: context.abort(grpc.StatusCode.UNAUTHENTICATED, "auth")
            )

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool, handlers=[Refusal()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


def test_a_wrong_password_is_one_line_without_it(refusing):
    for address, token in ((refusing, "root:secret"), (f"root:secret@{refusing}", "")):
        with pytest.raises(PermissionError) as error:
            reid_jax.MilvusGallery(f"http://{address}", token=token)
        one_line(error, f"the Milvus server at 'http://{refusing}' refuses the user or the passw")
        assert "secret" not in str(error.value)


def test_a_connection_that_ends_is_one_line(database, monkeypatch):
    import grpc

    class Lost(grpc.RpcError):
        def details(self):
            return "the socket\nis closed"

    def lost(*arguments, **options):
        raise Lost

    gallery = reid_jax.MilvusGallery(database, "lost")
    gallery.add([1.0, 2])
    monkeypatch.setattr(gallery._store._client, "search", lost)
    with pytest.raises(OSError, match=r"^collection 'lost' of .*: the socket is closed$"):
        gallery.search([1.0, 2])
    gallery.close()
