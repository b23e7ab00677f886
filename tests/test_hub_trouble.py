"""A Hub that does not answer, answers late, or answers something else: who waits how long, and what they are told."""

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from hub_behaviours import cut, drip, hang, page, stall, status
from hub_server import Behaviour, HubServer, requests_of
from micro import build

import mfsf2
import mfsf2.timm_models

REPO = "someone/lesions"
NAMES = ["benign", "malignant"]


@pytest.fixture
def model(hub_server: HubServer) -> Iterator[Any]:
    """A model that the Hub serves."""
    model = build(num_classes=2)
    mfsf2.save_pretrained(model, hub_server.root / REPO, NAMES)
    yield model
    shutil.rmtree(hub_server.root / REPO)


def create(cache: Path, **kwargs: Any) -> Any:
    return mfsf2.create_model(f"hf-hub:{REPO}", cache_dir=str(cache), **kwargs)


def is_same(a: Any, b: Any) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in a.state_dict().items())


def check_duration(limit: float, act: Callable[[], object]) -> None:
    """``act`` takes less than ``limit`` seconds. The fastest of three calls counts: others may hold the cores."""
    durations = []
    while len(durations) < 3 and not any(duration < limit for duration in durations):
        start = time.monotonic()
        act()
        durations.append(time.monotonic() - start)
    assert min(durations) < limit


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens where the client looks for the Hub."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")


ANSWERS: dict[str, tuple[Behaviour, type[OSError], str]] = {
    "404": (status(404), ConnectionError, r"answered 404 Not Found with no type, which is not a Hub response"),
    "403": (status(403), PermissionError, r"answered 403 Forbidden: you may need access to the repository, and token="),
    "401": (status(401), PermissionError, r"answered 401 Unauthorized"),
    "418": (status(418), ConnectionError, r"answered 418 I'm a Teapot"),
    "599": (status(599), ConnectionError, r"answered 599"),
    "page": (page("Log in to the hotel"), ConnectionError, r"answered 200 OK with text/html.*wants you to log in"),
    "redirected page": (status(302, Location="/login"), ConnectionError, r"/login answered 404 Not Found"),
    "endless redirects": (status(302, Location="/someone"), ConnectionError, r"answered 302 Found|answered 404"),
    "empty": (status(200), ConnectionError, r"answered 200 OK with no type"),
    "no such repository": (
        status(404, **{"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}),
        FileNotFoundError,
        r"there is no such repository, or it is private: .* answered 404 Not Found \(Repository not found\)",
    ),
    "gated": (
        status(403, **{"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"}),
        PermissionError,
        r"answered 403 Forbidden \(Access is restricted\)",
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_that_are_final(name: str, model: Any, hub_server: HubServer, tmp_path: Path) -> None:
    behaviour, error, message = ANSWERS[name]
    hub_server.misbehave("config.json", behaviour)

    def refuse() -> None:
        with pytest.raises(error, match=rf"^{REPO}@main: config\.json: .*{message}"):
            create(tmp_path)

    check_duration(1, refuse)
    # Whatever was asked for before, the cache answers.
    hub_server.behave()
    create(tmp_path)
    hub_server.misbehave(".", behaviour)
    assert is_same(create(tmp_path), model)


TROUBLES: dict[str, tuple[Behaviour, str]] = {
    "hang": (hang(), "no answer from .* within 1 s"),
    "drip": (drip(0.2), "no answer from .* within 1 s"),
    "429": (status(429), r"answered 429 Too Many Requests \(asked again"),
    "429 for long": (status(429, **{"Retry-After": "60"}), "answered 429 Too Many Requests"),
    "503": (status(503), r"answered 503 Service Unavailable \(asked again"),
    "504": (status(504), "answered 504 Gateway Timeout"),
}


@pytest.mark.parametrize("which", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("name", TROUBLES)
def test_time_is_limited(name: str, which: str, model: Any, hub_server: HubServer, tmp_path: Path) -> None:
    behaviour, message = TROUBLES[name]
    hub_server.misbehave(which, behaviour)

    def refuse() -> None:
        with pytest.raises(OSError, match=rf"^{REPO}@\w+: {which}: .*{message}"):
            create(tmp_path, timeout=1)

    check_duration(2, refuse)


@pytest.mark.parametrize("name", TROUBLES)
def test_the_cache_answers_instead(
    name: str, model: Any, hub_server: HubServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    create(tmp_path)

    def load() -> None:
        hub_server.behave()
        hub_server.misbehave(".", TROUBLES[name][0])
        assert is_same(create(tmp_path), model)
        assert len(requests_of(hub_server)) == 1

    check_duration(5, load)
    assert f"so the cached commit {hub_server.commit_of(REPO)} is used" in caplog.text
    with pytest.raises(OSError, match=REPO):
        create(tmp_path, force_download=True, timeout=1)


def test_half_a_cache(model: Any, hub_server: HubServer, tmp_path: Path) -> None:
    """The configuration is there, the weights are not, and the server is silent: it is waited for once."""
    hub_server.misbehave("model.safetensors", status(403))
    with pytest.raises(PermissionError, match=r"model\.safetensors"):
        create(tmp_path)
    hub_server.behave()
    hub_server.misbehave(".", hang())

    def refuse() -> None:
        with pytest.raises(TimeoutError, match=r"no answer .*; of the commit \w+, the cache has no model\.safetensors"):
            create(tmp_path, timeout=1)

    check_duration(2, refuse)


@pytest.mark.usefixtures("refused")
def test_connection_refused(model: Any, tmp_path: Path) -> None:
    for name in (f"hf-hub:{REPO}", "mfsf2_tiny_cls.in1k_backbones"):

        def refuse(name: str = name) -> None:
            with pytest.raises(ConnectionError, match=r"no answer from http://127\.0\.0\.1:9/.*: .*[Rr]efused"):
                mfsf2.create_model(name, pretrained=True, cache_dir=str(tmp_path))

        check_duration(5, refuse)


@pytest.mark.parametrize("offline", ["argument", "environment"])
def test_offline(
    offline: str, model: Any, hub_server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kwargs: dict[str, Any] = {}
    if offline == "argument":
        kwargs["local_files_only"] = True
    else:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    why = "local_files_only=True" if kwargs else "HF_HUB_OFFLINE=1"
    for name, repo, file in (
        (f"hf-hub:{REPO}", f"{REPO}@main", "config.json"),
        ("mfsf2_tiny_cls.in1k_backbones", "timm/resnet18.a1_in1k@main", "model.safetensors"),
    ):

        def refuse(name: str = name, parts: tuple[str, ...] = (repo, file)) -> None:
            with pytest.raises(FileNotFoundError) as caught:
                mfsf2.create_model(name, pretrained=True, cache_dir=str(tmp_path), **kwargs)
            for part in (*parts, str(tmp_path), why, "cache_dir=", "mfsf2_tiny_clsseg.ham10000"):
                assert part in str(caught.value)

        check_duration(1, refuse)
    assert not requests_of(hub_server)
    monkeypatch.undo()
    create(tmp_path)
    if not kwargs:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub_server.behave()
    assert is_same(create(tmp_path, **kwargs), model) and not requests_of(hub_server)
    with pytest.raises(FileNotFoundError, match="together with force_download=True"):
        create(tmp_path, force_download=True, **kwargs)


DOWNLOADS: dict[str, list[Behaviour]] = {
    "503 twice": [status(503), status(503)],
    "429": [status(429)],
    "502, then 504": [status(502), status(504)],
    "cut": [cut(20_000)],
    "cut twice": [cut(20_000), cut(40_000)],
    "cut, then 503": [cut(20_000), status(503)],
}


@pytest.mark.parametrize("name", DOWNLOADS)
def test_downloads_go_on(name: str, model: Any, hub_server: HubServer, tmp_path: Path) -> None:
    for behaviour in DOWNLOADS[name]:
        hub_server.misbehave("/cdn/", behaviour, times=1, methods=("GET",))
    assert is_same(create(tmp_path), model)


@pytest.mark.parametrize("behaviour", [status(503), cut(0)], ids=["503", "cut"])
def test_downloads_that_never_begin(behaviour: Behaviour, model: Any, hub_server: HubServer, tmp_path: Path) -> None:
    hub_server.misbehave("/cdn/", behaviour, methods=("GET",))
    with pytest.raises(ConnectionError, match=rf"^{REPO}@\w+: model\.safetensors.*asked again for"):
        create(tmp_path, timeout=1)
    hub_server.behave()
    assert is_same(create(tmp_path), model)


def test_downloads_that_are_forbidden(model: Any, hub_server: HubServer, tmp_path: Path) -> None:
    hub_server.misbehave("/cdn/", status(403), methods=("GET",))
    with pytest.raises(
        PermissionError, match=r"model\.safetensors: its download from \S*/cdn/\S* answered 403 Forbidden"
    ):
        create(tmp_path)


@pytest.mark.usefixtures("backbones")
def test_backbones(hub_server: HubServer, tmp_path: Path) -> None:
    """Both branches are looked for before either is downloaded, and a silent server costs its time once."""

    def make(**kwargs: Any) -> Any:
        with pytest.warns(UserWarning, match="untrained"):
            return mfsf2.create_model("mfsf2_tiny_cls", pretrained_backbones=True, cache_dir=str(tmp_path), **kwargs)

    hub_server.misbehave("pvt_v2_b0", status(404, **{"X-Error-Code": "RepoNotFound"}))
    with pytest.raises(
        FileNotFoundError, match=r"timm/pvt_v2_b0\.in1k@main: model\.safetensors: there is no such repos"
    ):
        mfsf2.create_model("mfsf2_tiny_cls", pretrained_backbones=True, cache_dir=str(tmp_path))
    assert not any(request.startswith("GET") for request in requests_of(hub_server))
    hub_server.behave()
    first = make()
    hub_server.behave()
    hub_server.misbehave(".", hang())

    def load() -> None:
        assert is_same(make().encoder.cnn, first.encoder.cnn)

    check_duration(5, load)
    hub_server.behave()
    for wrong in ({"num_clases": 3}, {"grid_size": 3}, {"channels": 0}):
        with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
            mfsf2.create_model("mfsf2_tiny_cls.in1k_backbones", pretrained=True, **wrong)
    assert not requests_of(hub_server)


STATE: Callable[[], dict[str, Any]] = lambda: {  # noqa: E731
    **{key: value for key, value in vars(huggingface_hub.constants).items() if key.isupper()},
    "logger": logging.getLogger("huggingface_hub").level,
}


def test_the_client_s_settings_stay(model: Any, hub_server: HubServer, tmp_path: Path) -> None:
    before = STATE()
    create(tmp_path, timeout=2)
    hub_server.misbehave(".", stall(0))
    create(tmp_path, timeout=2)
    assert STATE() == before
