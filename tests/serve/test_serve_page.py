"""The page, in a browser: what is seen, what keys do, and what other pages cannot do."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.serve.conftest import Served, encoded, eventually, serving

from edgeseg.images import write_image
from edgeseg.runtime import Runtime
from edgeseg.serve import live

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = which("chromium") or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in (
        "--headless=new",
        "--no-sandbox",  # which root cannot have
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--host-resolver-rules=MAP *.example 127.0.0.1",
        f"--user-data-dir={tmp_path_factory.mktemp('browser')}",
        "--window-size=1200,900",
    ):
        options.add_argument(argument)
    driver = webdriver.Chrome(options, Service(which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def browser(chrome: Chrome) -> Iterator[Chrome]:
    chrome.get_log("browser")  # empties it
    yield chrome
    chrome.get("about:blank")  # leaves the streams


@pytest.fixture(scope="module")
def without_source(runtime: Runtime) -> Iterator[Served]:
    with serving(runtime) as served:
        yield served


@pytest.fixture
def drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one picture: red above, blue below."""
    monkeypatch.setattr(live, "_SLIDE", 0.1)
    monkeypatch.setattr(live, "_RETRY", (0.1,))
    pixels = np.zeros((120, 160, 3), np.uint8)
    pixels[:60, :, 2] = pixels[60:, :, 0] = 200
    folder = tmp_path / "drive"
    folder.mkdir()
    write_image(folder / "0.png", pixels)
    return folder


def find(browser: Chrome, name: str) -> Any:
    return browser.find_element("id", name)


def text(browser: Chrome, name: str) -> str:
    return str(find(browser, name).text)


def becomes(browser: Chrome, name: str, words: str) -> None:
    eventually(lambda: text(browser, name) == words)


def legend(browser: Chrome) -> list[str]:
    return [row.text.replace("\n", " ") for row in browser.find_elements("css selector", "li")]


def complaints(browser: Chrome) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]


# ------------------------------------------------------------------------------------ a live source


def test_the_source_is_shown_live(browser: Chrome, runtime: Runtime, drive: Path) -> None:
    with serving(runtime, str(drive)) as served:
        browser.get(served.url)
        becomes(browser, "state", "live")
        assert browser.title == "drive – edgeseg"
        assert text(browser, "source") == "drive"
        assert legend(browser) == ["red 50.0 %", "green 0.0 %", "blue 50.0 %"]
        eventually(lambda: text(browser, "fps") not in ("", "–"))
        assert 1 < float(text(browser, "fps")) < 40  # ten, on a machine that is not busy
        times = [dd.text for dd in browser.find_elements("css selector", "#stages dd")]
        assert all(float(time.removesuffix(" ms")) > 0 for time in times)
        assert len(times) == 3
        assert "96 × 64" in text(browser, "engine")
        top, bottom = browser.execute_script(
            """
            const canvas = document.createElement("canvas");
            [canvas.width, canvas.height] = [160, 120];
            const context = canvas.getContext("2d", { willReadFrequently: true });
            context.drawImage(document.getElementById("live"), 0, 0, 160, 120);
            return [20, 100].map((y) => [...context.getImageData(80, y, 1, 1).data]);
            """
        )
        assert top == pytest.approx([228, 0, 0, 255], abs=8)  # half (200, 0, 0), half red
        assert bottom == pytest.approx([0, 0, 228, 255], abs=8)
        assert complaints(browser) == []


def test_the_sources_loss_is_shown_and_its_return(
    browser: Chrome, runtime: Runtime, drive: Path
) -> None:
    with serving(runtime, str(drive)) as served:
        browser.get(served.url)
        becomes(browser, "state", "live")
        away = drive.rename(drive.with_name("away"))
        becomes(browser, "state", "source lost")
        assert text(browser, "veil") == "drive is lost; trying to open it again"
        away.rename(drive)
        becomes(browser, "state", "live")
        assert not find(browser, "veil").is_displayed()
    becomes(browser, "state", "server gone")
    assert "does not answer" in text(browser, "veil")


def test_pause_by_keyboard_holds_the_frame_and_ends_the_stream(
    browser: Chrome, runtime: Runtime, drive: Path
) -> None:
    from selenium.webdriver import ActionChains, Keys

    with serving(runtime, str(drive)) as served:

        def watchers() -> int:
            return int(served.get("/health").json["watchers"])

        browser.get(served.url)
        becomes(browser, "state", "live")
        eventually(lambda: find(browser, "live").get_property("naturalWidth") > 0)
        assert watchers() == 2  # pictures and numbers
        ActionChains(browser).send_keys(Keys.TAB, Keys.ENTER).perform()
        becomes(browser, "state", "paused")
        pause = find(browser, "pause")
        assert (pause.text, pause.get_attribute("aria-pressed")) == ("Resume", "true")
        assert browser.switch_to.active_element == pause
        assert find(browser, "still").is_displayed()
        assert not find(browser, "live").is_displayed()
        eventually(lambda: watchers() == 0)
        ActionChains(browser).send_keys(Keys.SPACE).perform()
        becomes(browser, "state", "live")
        eventually(lambda: find(browser, "live").is_displayed())


# --------------------------------------------------------------------------------------- pictures


def test_a_chosen_picture_is_labelled(
    browser: Chrome,
    runtime: Runtime,
    without_source: Served,
    picture: NDArray[np.uint8],
    tmp_path: Path,
) -> None:
    from selenium.webdriver import ActionChains

    file = tmp_path / "picture.png"
    write_image(file, picture)
    result = runtime.predict(picture)
    browser.get(without_source.url)
    becomes(browser, "state", "ready")
    assert find(browser, "drop").is_displayed()
    find(browser, "file").send_keys(str(file))
    eventually(lambda: find(browser, "layers").is_displayed())

    assert legend(browser) == [f"{name} {100 * a:.1f} %" for name, a in result.areas().items()]
    assert float(text(browser, "total")) > 0
    shown = """
        const canvas = document.getElementById("labels");
        return [canvas.width, canvas.height,
                ...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
    """
    width, height, *pixels = browser.execute_script(shown)
    colours = np.array(pixels, np.uint8).reshape(height, width, 4)
    np.testing.assert_array_equal(colours[..., :3], result.colored()[..., ::-1])

    # One class alone, by its button, and all again.
    green = browser.find_elements("css selector", "#legend button")[1]
    green.click()
    assert green.get_attribute("aria-pressed") == "true"
    alpha = np.array(browser.execute_script(shown)[2:], np.uint8).reshape(height, width, 4)[..., 3]
    np.testing.assert_array_equal(alpha == 255, result.labels == 1)
    green.click()
    assert (np.array(browser.execute_script(shown)[2:])[3::4] == 255).all()

    # The class under the pointer, and the colours' opacity.
    labels = find(browser, "labels")
    ActionChains(browser).move_to_element(labels).perform()
    assert text(browser, "tip") == result.classes[result.labels[height // 2, width // 2]]
    browser.execute_script(
        "const range = document.getElementById('opacity'); range.value = 20;"
        "range.dispatchEvent(new Event('input'))"
    )
    assert labels.value_of_css_property("opacity") == "0.2"
    assert complaints(browser) == []


DROP = """
    const [name, type, bytes] = arguments;
    const files = new DataTransfer();
    files.items.add(new File([new Uint8Array(bytes)], name, { type }));
    document.getElementById("stage").dispatchEvent(
        new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true }));
"""


def test_a_dropped_picture_and_a_dropped_text(
    browser: Chrome, without_source: Served, picture: NDArray[np.uint8]
) -> None:
    browser.get(without_source.url)
    becomes(browser, "state", "ready")
    browser.execute_script(DROP, "notes.txt", "text/plain", list(b"no picture"))
    eventually(lambda: find(browser, "error").is_displayed())
    assert text(browser, "error") == "notes.txt is no picture that the browser can show."
    browser.execute_script(DROP, "a.jpg", "image/jpeg", list(encoded(picture, ".jpg")))
    eventually(lambda: find(browser, "layers").is_displayed())
    assert not find(browser, "error").is_displayed()


def test_a_large_picture_is_made_smaller_before_it_is_sent(
    browser: Chrome, without_source: Served, tmp_path: Path
) -> None:
    write_image(tmp_path / "large.png", np.full((3000, 4000, 3), 120, np.uint8))
    browser.get(without_source.url)
    becomes(browser, "state", "ready")
    find(browser, "file").send_keys(str(tmp_path / "large.png"))
    eventually(lambda: find(browser, "layers").is_displayed(), 30)
    size = browser.execute_script(
        "const c = document.getElementById('labels');return [c.width, c.height]"
    )
    assert 7.8e6 < size[0] * size[1] <= 8e6


def test_an_error_of_the_server_is_shown(browser: Chrome, runtime: Runtime) -> None:
    with serving(runtime) as served:
        browser.get(served.url)
        becomes(browser, "state", "ready")
        png = encoded(np.zeros((8, 8, 3), np.uint8))
        browser.execute_script(
            "window.fetch = () => Promise.resolve(new Response("
            "JSON.stringify({ error: '18 pictures are waiting' }), { status: 429 }))"
        )
        browser.execute_script(DROP, "a.png", "image/png", list(png))
        eventually(lambda: text(browser, "error") == "18 pictures are waiting.")


# ------------------------------------------------------------------------------------------- looks


@pytest.mark.parametrize("width", [320, 390, 800, 1600])
def test_it_fits_any_screen(browser: Chrome, without_source: Served, width: int) -> None:
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 800}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        browser.get(without_source.url)
        becomes(browser, "state", "ready")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        for button in browser.find_elements("css selector", "button, .button"):
            assert not button.is_displayed() or button.size["height"] >= 32
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_it_is_dark_where_the_system_is(browser: Chrome, without_source: Served) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get(without_source.url)
        body = browser.find_element("css selector", "body")
        grounds.append(body.value_of_css_property("background-color"))
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert grounds == ["rgba(244, 245, 247, 1)", "rgba(15, 18, 23, 1)"]


# ------------------------------------------------------------------------------------- other pages


@contextmanager
def other_page(html: str) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(html.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://elsewhere.example:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_another_page_can_neither_look_nor_send(
    browser: Chrome, runtime: Runtime, drive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predicted: list[object] = []
    monkeypatch.setattr(Runtime, "predict", lambda *arguments: predicted.append(arguments))
    png = list(encoded(np.zeros((8, 8, 3), np.uint8)))
    with (
        serving(runtime, str(drive)) as served,
        other_page("<img id=camera><iframe id=frame></iframe>") as url,
    ):
        browser.get(url)
        endings = browser.execute_async_script(
            """
            const [server, png, done] = arguments;
            const picture = new Promise((end) => {
                const camera = document.getElementById("camera");
                camera.onload = () => end("seen");
                camera.onerror = () => end("refused");
                camera.src = server + "/live.mjpg";
            });
            const send = (mode, headers) => fetch(server + "/predict", {
                method: "POST", mode, headers, body: new Blob([new Uint8Array(png)]),
            }).then((answer) => answer.type, () => "refused");
            Promise.all([
                picture, send("cors", { "Content-Type": "image/png" }), send("cors", {}),
                send("no-cors", {}), send("no-cors", { "Content-Type": "text/plain" }),
            ]).then(done);
            """,
            served.url,
            png,
        )
        assert endings[:3] == ["refused"] * 3
        assert predicted == []
        assert served.get("/health").json["watchers"] == 0


def test_a_name_that_was_pointed_here_shows_nothing(
    browser: Chrome, without_source: Served
) -> None:
    browser.get(f"http://rebound.example:{without_source.port}")
    assert "the Host header is no name of this server" in browser.page_source
