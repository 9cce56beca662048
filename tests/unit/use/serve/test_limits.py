"""Limits, keys, headers and logs: what a server refuses, and what it shows of a request."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.unit.use.serve.conftest import encoded


@pytest.fixture
def busy(client_of: Callable[..., Any], models: Any) -> Iterator[Callable[..., Any]]:
    """Make a client whose model computes nothing until the test calls `client.release()`."""
    gate = threading.Event()

    def make(**limits: Any) -> Any:
        from vitreous.use.serve.guard import Limits

        client = client_of(models, Limits(**limits))
        client.portal.start_task_soon(client.service._batcher.submit, lambda items: [gate.wait(30)], [None], id)
        client.release = gate.set
        return client

    yield make
    gate.set()


def test_too_large_a_body_is_refused_by_its_header(client_of: Callable[..., Any], models: Any) -> None:
    from vitreous.use.serve.guard import Limits

    client = client_of(models, Limits(max_bytes=1000))
    answer = client.post("/predict", content=bytes(1001))
    assert answer.status_code == 413
    assert answer.json()["error"] == (
        "body=1,001 bytes: at most 1,000 bytes are accepted; send a smaller image, or fewer of them"
    )
    assert client.app._held_bytes == 0


def test_too_large_a_body_without_a_length_is_refused_while_it_arrives(
    client_of: Callable[..., Any], models: Any
) -> None:
    from vitreous.use.serve.guard import Limits

    client = client_of(models, Limits(max_bytes=1000))
    for path, headers in (
        ("/predict", {}),
        ("/predict", {"content-type": "multipart/form-data; boundary=x"}),
        ("/v2/models/tiny run/infer", {"content-type": "application/json"}),
    ):
        answer = client.post(path, content=iter([bytes(600), bytes(600)]), headers=headers)
        assert (path, answer.status_code) == (path, 413)
        assert list(answer.json()) == ["error"]
    assert client.app._held_bytes == 0


def test_many_bodies_at_once_are_refused(client_of: Callable[..., Any], models: Any) -> None:
    from vitreous.use.serve.guard import Limits

    client = client_of(models, Limits(max_bytes=1000))
    client.app._held_bytes = 16_000
    answer = client.post("/predict", content=b"x")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert client.app._held_bytes == 16_000


def test_full_queue_is_refused_with_the_time_to_try_again(busy: Callable[..., Any]) -> None:
    client = busy(max_waiting=2)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(client.post, "/predict", content=encoded(seed)) for seed in range(2)]
        wait_until(lambda: client.service._num_waiting == 2)
        refused = client.post("/predict", content=encoded(3))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json() == {"error": "busy: 2 of at most 2 images are waiting; try again"}
        client.release()
        assert [each.result().status_code for each in waiting] == [200, 200]
    assert client.post("/predict", content=encoded(3)).status_code == 200


def test_request_with_more_images_than_may_wait_is_accepted_by_an_idle_server(
    client_of: Callable[..., Any], models: Any
) -> None:
    from vitreous.use.serve.guard import Limits

    client = client_of(models, Limits(max_waiting=1))
    assert client.post("/predict", files=[("a", ("a", encoded(1))), ("b", ("b", encoded(2)))]).status_code == 200


def test_answer_that_takes_too_long_is_given_up(busy: Callable[..., Any]) -> None:
    client = busy(seconds=0.2)
    for path in ("/predict", "/explain"):
        late = client.post(path, content=encoded())
        assert (late.status_code, late.headers["retry-after"]) == (503, "1")
        assert late.json()["error"].startswith("busy: the answer took ")
    assert client.service._num_waiting == 0
    client.release()
    assert client.post("/predict", content=encoded()).status_code == 200


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("keys", [("secret",), ("old ü", "secret")])
def test_requests_need_a_key(keys: tuple[str, ...], client_of: Callable[..., Any], models: Any) -> None:
    client = client_of(models, None, keys)
    for given in (None, "Bearer wrong", "Bearer", "secret", "Bearer secret2", "Basic secret"):
        headers = {"authorization": given} if given else {}
        for method, path in (("POST", "/predict"), ("POST", "/explain"), ("GET", "/metrics"), ("GET", "/openapi.json")):
            answer = client.request(method, path, content=encoded(), headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    for key in keys:
        headers = {"authorization": f"Bearer {key}".encode()}
        assert client.post("/predict", content=encoded(), headers=headers).status_code == 200


def test_page_and_health_need_no_key(client_of: Callable[..., Any], models: Any) -> None:
    client = client_of(models, None, ("secret",))
    assert [client.get(path).status_code for path in ("/", "/v2/health/live", "/v2/health/ready")] == [200] * 3
    assert client.get("/v2/models/tiny run/ready").status_code == 401


def test_every_answer_has_security_headers_and_none_allows_other_websites(client: Any) -> None:
    headers = {"origin": "https://example.org"}
    for method, path in (
        ("GET", "/"),
        ("GET", "/nothing"),
        ("POST", "/predict"),
        ("GET", "/v2"),
        ("OPTIONS", "/predict"),
    ):
        answer = client.request(method, path, headers=headers)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200), (None, 200)]
)
def test_requests_that_another_website_makes_a_browser_send_are_refused(
    site: str | None, status: int, client: Any
) -> None:
    headers = {"sec-fetch-site": site} if site else {}
    assert client.post("/predict", content=encoded(), headers=headers).status_code == status
    assert client.get("/", headers=headers).status_code == 200  # a link from another website


@pytest.mark.parametrize(
    "name",
    ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.8.9.1:80", "[::1]", "[::1]:8000", "photos.example.org:1",
     "10.0.0.5", ""],
)  # fmt: skip
def test_names_of_the_server_are_answered_at_any_port(name: str, client_of: Callable[..., Any], models: Any) -> None:
    client = client_of(models, hosts={"photos.example.org", "10.0.0.5"})
    assert client.post("/predict", content=encoded(), headers={"host": name}).status_code == 200


@pytest.mark.parametrize(
    "name",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example@localhost",
     "10.0.0.6", "[::2]:8000", "127.0.0.1:x", "örg", "localhost:8000, evil.example"],
)  # fmt: skip
def test_other_names_are_refused_on_every_path(name: str, client_of: Callable[..., Any], models: Any) -> None:
    client = client_of(models, hosts={"photos.example.org", "10.0.0.5"})
    for method, path in (("POST", "/predict"), ("GET", "/"), ("GET", "/metrics"), ("GET", "/v2/health/ready")):
        answer = client.request(method, path, headers={"host": name.encode("latin-1")})
        assert (path, answer.status_code) == (path, 403)
        (text,) = answer.json().values()
        assert text.isprintable()
        assert text.endswith(": is not a name of this server; start it with --allow-host NAME, or with an API key")
    assert client.get("/", headers={"host": "evil.example"}).json()["error"].startswith("host=evil.example: is not ")


def test_any_name_is_answered_without_names_of_the_server(client: Any) -> None:
    assert client.get("/", headers={"host": "evil.example"}).status_code == 200


def test_error_of_the_server_is_not_shown_to_clients(client: Any, models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, images: object) -> list[object]:
        raise RuntimeError("secret path")

    monkeypatch.setattr(type(models.versions["tiny run"][0]), "classify", fail)
    answer = client.post("/predict", content=encoded())
    assert (answer.status_code, answer.json()) == (
        500,
        {"error": "internal error; the log of the server has the traceback"},
    )
    monkeypatch.undo()
    assert client.post("/predict", content=encoded()).status_code == 200


def test_log_has_a_line_of_json_for_each_request_without_content(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    content = encoded()
    with caplog.at_level(logging.INFO, "vitreous.serve"):
        client.post("/predict", files={"image": ("Ann's photo.png", content)})
        client.post("/explain?target=two+words", content=content)
        client.get("/v2/models/tiny run")
        client.get("/nothing/of/this%0A")
    lines = [json.loads(record.message) for record in caplog.records]
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("POST", "/predict", 200),
        ("POST", "/explain", 200),
        ("GET", "/v2/models/{model}", 200),
        ("GET", "other", 404),
    ]
    assert (lines[0]["model"], lines[0]["images"], lines[0]["unreadable"]) == ("tiny run", 1, 0)
    assert (lines[1]["model"], lines[1]["bytes"]) == ("tiny run", len(content))
    assert all(line["seconds"] >= 0 and line["time"].endswith("Z") for line in lines)
    assert not any(secret in caplog.text for secret in ("Ann", "two words", "nothing"))


def test_metrics_count_requests_images_and_batches(client: Any) -> None:
    client.post("/predict", files=[("a", ("a", encoded())), ("b", ("b", b"no image"))])
    client.post("/predict", content=b"no image")
    answer = client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.text.splitlines()
    for line in (
        'vitreous_requests_total{path="/predict",status="200"} 1',
        'vitreous_requests_total{path="/predict",status="422"} 1',
        'vitreous_request_duration_seconds_bucket{path="/predict",le="+Inf"} 2',
        'vitreous_request_duration_seconds_count{path="/predict"} 2',
        'vitreous_images_total{model="tiny run"} 3',
        'vitreous_unreadable_images_total{model="tiny run"} 2',
        "vitreous_batches_total 2",
        "vitreous_batch_images_total 3",
        "vitreous_waiting_images 0",
        "# TYPE vitreous_request_duration_seconds histogram",
    ):
        assert line in lines
    assert sum(line.startswith("# TYPE vitreous_requests_total ") for line in lines) == 1


def test_openapi_describes_every_route_and_loads_nothing(client: Any) -> None:
    described = client.get("/openapi.json").json()
    assert set(described["paths"]) == {
        *("/predict", "/explain", "/metrics", "/v2", "/v2/health/live", "/v2/health/ready"),
        *(f"/v2/models/{{model}}{v}{p}" for v in ("", "/versions/{version}") for p in ("", "/ready", "/infer")),
    }
    assert set(described["paths"]["/predict"]["post"]["requestBody"]["content"]) == {
        *("image/*", "multipart/form-data", "application/json"),
    }
    content = {
        name: described["paths"][f"/{name}"]["post"]["requestBody"]["content"] for name in ("predict", "explain")
    }
    for name, most in (("predict", 64), ("explain", 1)):
        assert content[name]["application/json"]["schema"]["properties"]["urls"]["maxItems"] == most
        assert content[name]["multipart/form-data"]["schema"]["properties"]["images"]["maxItems"] == most
    assert {"200", "400", "401", "404", "413", "422", "503"} <= set(described["paths"]["/predict"]["post"]["responses"])
    metrics = described["paths"]["/metrics"]["get"]["responses"]
    assert {code: list(answer["content"]) for code, answer in metrics.items()} == {
        "200": ["text/plain"],
        "401": ["application/json"],
    }
    assert "://" not in json.dumps(described)
    assert [client.get(path).status_code for path in ("/docs", "/redoc")] == [404, 404]
