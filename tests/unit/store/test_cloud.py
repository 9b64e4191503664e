"""A bucket that refuses, is slow or gone: what is said, what is tried again, what is read back."""

import contextlib
import http.server
import json
import threading

import pytest

from headrace.core.errors import ConfigError, NotFound, StorageError, Undecided
from headrace.store.cloud import CloudDisk, CloudSettings


class Scripted:
    """A server that answers with what it was told to, the last answer for ever."""

    def __init__(self):
        self.answers = [(200, b"")]
        self.seen, self.generations = [], []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.seen.append(
                    (self.command, self.headers.get("If-None-Match"), self.headers.get("If-Match"))
                )
                outer.generations.append(self.headers.get("x-goog-if-generation-match"))
                status, body = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                if status == 0:  # hang up in the middle
                    self.connection.close()
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("ETag", '"v1"')
                self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = answer  # noqa: N815

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def service():
    one = Scripted()
    yield one
    one.close()


@pytest.fixture
def disk(service, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    return CloudDisk("s3://plants/leon/", CloudSettings(service.endpoint, "us-east-1", timeout_s=1.0))


def xml(code):
    return f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()


@pytest.mark.parametrize(("there", "is_ours"), [(b"new", True), (b"another", False)])
def test_a_swap_whose_answer_was_lost_is_read_back(service, disk, there, is_ours):
    service.answers = [(200, b"old"), (503, xml("SlowDown")), (412, b""), (200, there)]
    assert disk.swap("catalogue.json", b"old", b"new") is is_ours
    assert [seen for seen in service.seen if seen[0] == "PUT"] == [("PUT", None, '"v1"')] * 2
    service.answers = [(200, b"another")]
    service.seen.clear()
    assert not disk.swap("catalogue.json", b"old", b"new")
    assert [method for method, _, _ in service.seen] == ["GET"]
    service.answers = [(412, b""), (404, b"")]
    assert not disk.swap("catalogue.json", None, b"new")


WHERE = "s3://plants/leon/commits/1"


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (403, xml("AccessDenied"), "access is denied; the credentials must let it list, read, write and delete there"),
        (403, xml("SignatureDoesNotMatch"), "does not know who we are; give credentials in the environment"),
        (403, xml("RequestTimeTooSkewed"), "this machine's clock is wrong; set it"),
        (401, b"", "does not know who we are"),
        (404, xml("NoSuchBucket"), "the bucket does not exist; create it, or correct store.url"),
        (301, xml("PermanentRedirect"), "another region; set store.options.region"),
        (400, xml("InvalidArgument"), "does not take the request (400 InvalidArgument)"),
        (418, b"", "status code: 418"),
    ],
)  # fmt: skip
def test_a_refusal_says_where_and_what_to_do(service, disk, status, body, says):
    service.answers = [(status, body)]
    calls = {
        "read": lambda: disk.read("commits/1"),
        "list": lambda: disk.list("commits"),
        "write": lambda: disk.put_if_absent("commits/1", b"x"),
    }
    for action, call in calls.items():
        with pytest.raises(StorageError) as caught:
            call()
        where = "s3://plants/leon/commits" if action == "list" else WHERE
        assert str(caught.value).startswith(f"can't {action} {where}: ")
        assert says in str(caught.value)
        assert not isinstance(caught.value, Undecided)
    assert len(service.seen) == 3  # none is tried again


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (503, "asks to slow down; it is asked again later"),
        (429, "slow down"),
        (500, "a fault of its own (500)"),
    ],
)
def test_what_may_pass_is_tried_again_within_bounds(service, disk, status, says):
    service.answers = [(status, b""), (status, b""), (200, b"at last")]
    assert bytes(disk.read("commits/1")) == b"at last"
    service.answers = [(status, b"")]
    for call in (lambda: disk.read("commits/1"), lambda: disk.list("commits")):
        with pytest.raises(StorageError, match="can't") as caught:
            call()
        assert says.split(" (")[0] in str(caught.value)


def test_a_put_is_tried_again(service, disk):
    service.answers = [(503, b""), (500, b""), (200, b"")]
    assert disk.put_if_absent("commits/1", b"x")
    assert service.seen == [("PUT", "*", None)] * 3


def test_a_put_whose_answer_was_lost_is_read_back(service, disk):
    service.answers = [(0, b""), (412, xml("PreconditionFailed")), (200, b"ours")]
    assert disk.put_if_absent("commits/1", b"ours")
    service.answers = [(0, b""), (412, xml("PreconditionFailed")), (200, b"another's")]
    assert not disk.put_if_absent("commits/1", b"ours")


def test_what_exists_before_the_first_answer_is_not_ours(service, disk):
    service.answers = [(412, xml("PreconditionFailed")), (200, b"same")]
    assert not disk.put_if_absent("commits/1", b"same")
    assert [method for method, *_ in service.seen] == ["PUT", "HEAD"]


def test_an_attempt_of_another_that_came_to_nothing_is_no_object(service, disk):
    service.answers = [(409, xml("ConditionalRequestConflict")), (404, b""), (200, b"")]
    assert disk.put_if_absent("commits/1", b"x")
    service.answers = [(409, xml("ConditionalRequestConflict")), (404, b"")] * 8
    with pytest.raises(StorageError, match="others write it and remove it again"):
        disk.put_if_absent("commits/1", b"x")


def test_a_put_without_an_answer_is_undecided(service, disk):
    service.answers = [(500, b"")]
    with pytest.raises(Undecided, match=f"can't write {WHERE}: "):
        disk.put_if_absent("commits/1", b"x")


def test_a_put_whose_answer_was_lost_is_undecided_until_it_is_read_back(service, disk):
    """What was given up may still be under way, whatever is said of the next attempt."""
    service.answers = [(0, b""), (412, xml("PreconditionFailed")), (403, b"")]
    with pytest.raises(Undecided, match="access is denied"):
        disk.put_if_absent("commits/1", b"x")
    service.answers = [(0, b""), (403, b"")]
    with pytest.raises(Undecided, match="access is denied"):
        disk.put_if_absent("commits/1", b"x")
    service.answers = [(0, b"")] + [(409, xml("ConditionalRequestConflict")), (404, b"")] * 8
    with pytest.raises(Undecided, match="others write it"):
        disk.put_if_absent("commits/1", b"x")


def test_a_service_that_is_gone_can_not_be_reached(service, disk):
    service.close()
    for call in (lambda: disk.read("commits/1"), lambda: disk.put_if_absent("commits/1", b"x")):
        with pytest.raises(
            StorageError, match=r"can't be reached; check the network and store\.options\.endpoint"
        ):
            call()
    disk.prefetch(["commits/1", "commits/2"])  # a hint never raises


def test_a_replace_writes_over_what_was_there_and_nothing_else(service, disk):
    service.answers = [
        (404, b""),
        (200, b""),
        (200, b""),
        (412, xml("PreconditionFailed")),
        (200, b""),
        (200, b""),
    ]
    disk.replace("state/1", b"x")
    disk.replace("state/1", b"y")
    assert service.seen == [
        ("HEAD", None, None), ("PUT", "*", None),
        ("HEAD", None, None), ("PUT", None, '"v1"'), ("HEAD", None, None), ("PUT", None, '"v1"'),
    ]  # fmt: skip
    service.answers = [(200, b""), (412, xml("PreconditionFailed"))] * 9
    with pytest.raises(StorageError, match="can't write s3://plants/leon/state/1"):
        disk.replace("state/1", b"z")


def test_a_bucket_holds_whole_objects_only(disk):
    with pytest.raises(StorageError, match="what grows is kept in a folder"):
        disk.append("journal/1")
    with pytest.raises(StorageError, match="objects are whole"):
        disk.truncate("journal/1", 5)


def test_an_object_of_another_size_tells_its_own(service, disk):
    service.answers = [(416, b""), (200, b"short")]
    assert disk.open("segments/1", 5_000).size_bytes == 5
    service.answers = [(403, b""), (200, b"x" * 5_000)]
    with pytest.raises(StorageError, match="access is denied"):
        disk.open("segments/1", 5_000)


def test_without_credentials_it_says_so(service, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{service.endpoint}/credentials")
    service.answers = [(403, b"")]
    disk = CloudDisk("s3://plants", CloudSettings(service.endpoint, "us-east-1", timeout_s=1.0))
    with pytest.raises(StorageError, match=r"can't read s3://plants/commits/1: "):
        disk.read("commits/1")


def test_settings_that_can_not_be_are_told_before_anything_is_asked(tmp_path, monkeypatch):
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(ConfigError, match=r"name the storage account: store\.options\.account"):
        CloudDisk("az://plants/leon")
    with pytest.raises(ConfigError, match="can't use s3://plants"):
        CloudDisk("s3://plants", CloudSettings(ca_file=str(tmp_path / "none.pem")))
    (tmp_path / "ca.pem").write_text("no certificate")
    with contextlib.suppress(ConfigError):  # some builds only look at it when they connect
        CloudDisk("s3://plants", CloudSettings(ca_file=str(tmp_path / "ca.pem")))


def test_google_and_azure_are_asked_in_their_own_ways(service, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
    azure = CloudDisk("az://plants/leon", CloudSettings(service.endpoint, account="leon", timeout_s=1.0))
    service.answers = [(201, b"")]
    monkeypatch.setenv("AZURE_ALLOW_HTTP", "true")
    assert azure.put_if_absent("commits/1", b"x")
    assert service.seen[-1] == ("PUT", "*", None)
    service.answers = [(404, xml("ContainerNotFound"))]
    with pytest.raises(StorageError, match="the container does not exist"):
        azure.read("commits/1")
    service.answers = [(404, xml("BlobNotFound"))]
    with pytest.raises(NotFound, match="az://plants/leon/commits/1 does not exist"):
        azure.read("commits/1")
    key = {"gcs_base_url": service.endpoint, "disable_oauth": True, "client_email": "", "private_key": ""}
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps({**key, "private_key_id": ""}))
    google = CloudDisk("gs://plants/leon", CloudSettings(service.endpoint, timeout_s=1.0))
    service.answers = [(200, b"")]
    assert google.put_if_absent("commits/1", b"x")
    assert service.generations[-1] == "0"
    service.answers = [(412, b""), (200, b"")]
    assert not google.put_if_absent("commits/1", b"x")
    service.answers = [(404, b"The specified bucket does not exist")]
    with pytest.raises(StorageError, match="the bucket does not exist"):
        google.put_if_absent("commits/1", b"x")
