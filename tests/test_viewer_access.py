"""Whom the viewer answers: the page that its user opened, and nobody else; and what a client can make it do."""

import errno
import socket
import threading
import time
import urllib.error
import urllib.request

import pytest
from tiny_model import tiny_drawing, tiny_views

from gaussian_renderer.viewer import Canvas, Viewer, access, server
from gaussian_renderer.viewer.access import Access, listening

viser = pytest.importorskip("viser")
connection = pytest.importorskip("websockets.sync.client")
msgspec = pytest.importorskip("msgspec")
websockets = pytest.importorskip("websockets")


@pytest.fixture(scope="module")
def viewer(tmp_path_factory):
    made = Viewer(Canvas(tiny_drawing(), tiny_views(tmp_path_factory.mktemp("model"))), port=18080, training=True)
    yield made
    made.close()


def send(client, kind: str, **values) -> None:
    """Send one of viser's messages."""
    client.send(msgspec.msgpack.encode({"type": kind} | values))


def connect(viewer, path=None, **more):
    """A connection as viser's page makes it: it speaks viser's version, and says where its camera is."""
    path = f"/{viewer._access.token}" if path is None else path
    client = connection.connect(
        f"ws://127.0.0.1:{viewer.port}{path}", subprotocols=[f"viser-v{viser.__version__}"], max_size=None, **more
    )
    send(
        client, "ViewerCameraMessage", wxyz=(1, 0, 0, 0), position=(0, 0, -4), fov=1.0, near=0.01, far=1000.0,
        image_height=60, image_width=80, look_at=(0, 0, 0), up_direction=(0, -1, 0),
    )  # fmt: skip
    return client


def eventually(check, seconds=15.0) -> bool:
    end = time.monotonic() + seconds
    while not (held := check()) and time.monotonic() < end:
        time.sleep(0.02)
    return bool(held)


def test_the_page_is_served_at_its_secret_address_only(viewer):
    def status(path: str, **headers: str) -> int:
        request = urllib.request.Request(f"http://127.0.0.1:{viewer.port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert answer.headers["Referrer-Policy"] == "no-referrer"
                return int(answer.status)
        except urllib.error.HTTPError as error:
            assert "viewer" not in viser.__name__ and viewer._access.token not in error.read().decode()
            return error.code

    secret = f"/{viewer._access.token}"
    own = f"http://127.0.0.1:{viewer.port}"
    assert viewer.url == f"http://localhost:{viewer.port}{secret}/" and len(secret) > 20
    assert status(secret) == status(f"{secret}/") == status(f"{secret}/?x", Origin=own) == 200
    for path in ("/", "/index.html", f"/x{secret}", secret[:-1], f"//{secret[1:-2]}/.."):
        assert status(path) == 403, path
    for host in ("evil.example", f"evil.example:{viewer.port}", "localhost.evil.example", "[::1", ""):
        assert status(secret, Host=host) == 403, host
    for host in ("localhost", "localhost:9000", f"127.0.0.1:{viewer.port}", "[::1]:8080"):  # an SSH tunnel has its port
        assert status(secret, Host=host) == 200, host
    for origin in ("http://evil.example", "null", f"http://localhost:{viewer.port}", own + ".evil.example"):
        assert status(secret, Origin=origin) == 403, origin
    assert status(f"{secret}/../../etc/passwd") == 404


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("", {}),
        (None, {"origin": "http://evil.example"}),
        (None, {"additional_headers": {"Host": "evil.example"}}),
        ("/0000000000000000000000", {"origin": "http://127.0.0.1"}),
    ],
)
def test_a_foreign_page_does_not_get_in(viewer, path, more):
    with pytest.raises(websockets.InvalidStatus) as caught:
        connect(viewer, path, **more)
    assert caught.value.response.status_code == 403
    assert not viewer._sessions and viewer.state == "running"


def test_one_s_own_page_does(viewer):
    with connect(viewer, origin=f"http://127.0.0.1:{viewer.port}"):
        assert eventually(lambda: len(viewer._sessions) == 1)
    assert eventually(lambda: not viewer._sessions)


def test_many_come_and_go(viewer, monkeypatch):
    monkeypatch.setattr(server, "_MOST_CLIENTS", 20)

    def drawing() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("viewer-")]

    clients = []
    for i in range(20):
        clients.append(connect(viewer))
        assert eventually(lambda i=i: len(viewer._sessions) == i + 1)
    with pytest.raises(websockets.InvalidStatus):
        connect(viewer)
    for client in clients[:10]:  # gone without a word
        client.socket.shutdown(socket.SHUT_RDWR)
        client.socket.close()
    assert eventually(lambda: len(viewer._sessions) == 10)
    for client in clients:
        client.close()
    assert eventually(lambda: not viewer._sessions and not drawing())
    assert viewer.state == "running"


def test_nobody_gets_a_public_tunnel(viewer, monkeypatch):
    from viser import _viser

    asked = []
    monkeypatch.setattr(_viser, "ViserTunnel", lambda *args: asked.append(args))
    with connect(viewer) as client:
        assert eventually(lambda: viewer._sessions)
        for kind in ("ShareUrlRequest", "ShareUrlDisconnect"):
            send(client, kind)
        time.sleep(0.3)
    assert not asked and viewer.server.request_share_url() is None


def test_numbers_out_of_range_are_clamped(viewer):
    with connect(viewer):
        assert eventually(lambda: viewer._sessions)
        [session] = viewer._sessions.values()
        for value in (1e9, -5, float("nan")):
            for control in (session._u, session._border, session._size):
                control.value = value
            session._lines.value = 10**9 if value > 0 else -5
            for view in (None, 1):
                session._view = view
                camera = session.client.camera
                camera._state.aspect, camera._state.image_height, camera._state.fov = value, 10**9, value
                height, width, _ = session._picture(moving=False).shape
                assert 0 < height * width < 12e6  # a view is letterboxed to the window
            session.draw_cameras()


def test_addresses_that_cannot_be_listened_on():
    with pytest.raises(ValueError, match=r"cannot listen on 192\.0\.2\.1: this machine does not have that address"):
        listening("192.0.2.1", 8080)
    with pytest.raises(ValueError, match=r"cannot listen on no such host: not an address"):
        listening("no such host", 8080)
    with pytest.raises(ValueError, match=r"cannot listen on 1::2::3: not an address"):
        listening("1::2::3", 8080)


def test_taken_ports(monkeypatch):
    with listening("127.0.0.1", 18200) as first:
        port = first.getsockname()[1]
        with listening("127.0.0.1", port) as second:
            assert port < second.getsockname()[1] <= port + 99
    monkeypatch.setattr(access, "_PORTS", 1)
    with listening("127.0.0.1", 65535) as last:
        assert last.getsockname()[1] == 65535
        with pytest.raises(ValueError, match="port 65535 is taken; give another one"):
            listening("127.0.0.1", 65535)
    bound = socket.socket.bind

    def denied(self, address):
        if address[1] == 80:
            raise PermissionError(errno.EACCES, "Permission denied")
        bound(self, address)

    monkeypatch.setattr(socket.socket, "bind", denied)
    with pytest.raises(ValueError, match="port 80 needs the rights of an administrator"):
        listening("127.0.0.1", 80)


def test_printed_addresses_are_well_formed():
    for host, shown in (
        ("127.0.0.1", "localhost"), ("0.0.0.0", "localhost"), ("::", "localhost"), ("::1", "[::1]"),
        ("192.168.1.5", "192.168.1.5"), ("server.lan", "server.lan"),
    ):  # fmt: skip
        made = Access(host)
        assert made.url(8080) == f"http://{shown}:8080/{made.token}/"
        assert made.refusal(f"/{made.token}", f"{shown}:8080", f"http://{shown}:8080") is None
    assert Access("::1").token != Access("::1").token


def test_an_unprotected_server_is_not_started(tmp_path, monkeypatch):
    """A viser that starts its server in another way would be open to everybody."""
    made = []

    class Other:
        def __init__(self, **more):
            made.append(more)

        def stop(self):
            made.append("stopped")

    monkeypatch.setattr(viser, "ViserServer", Other)
    with pytest.raises(ValueError, match="this version of viser cannot be protected"):
        Viewer(Canvas(tiny_drawing(), tiny_views(tmp_path)), port=18300)
