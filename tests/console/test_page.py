"""The page in a real browser (Debian's chromium), against the real server and a graph that is played."""

from __future__ import annotations

import asyncio
import shutil
import struct
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from udvla_ros.console.hub import Hub
from udvla_ros.console.news import LIVE, PREDICTED, News, about, as_jpeg
from udvla_ros.console.server import Server
from udvla_ros.motion.robot import RobotDescription

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
playwright = pytest.importorskip("playwright.sync_api", reason="no browser to test with: pip install playwright")
pytestmark = [
    pytest.mark.slow, pytest.mark.timeout(240),
    pytest.mark.skipif(not CHROMIUM, reason="no browser to test with: sudo apt-get install chromium"),
]  # fmt: skip
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]


class Graph:
    """A server in a thread, what was asked of it, and pictures that move."""

    def __init__(self, port: int = 0, token: str = "") -> None:
        self.hub, self.asked, self._begun = Hub(), [], threading.Event()
        self.hub.tell(about(RobotDescription.load("ur5e_sim")))
        self.mode("HOLD", "start-up")
        self.hub.tell(News("recorder", {"state": "IDLE"}))
        self.hub.tell(News("knobs/policy_node", {"denoise_steps": 8}))
        ranges = {"name": "denoise_steps", "words": "steps", "type": 2, "low": 1, "high": 256, "choices": []}
        self.hub.tell(News("ranges/policy_node", [ranges]))
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(port, token)), daemon=True)
        self._thread.start()
        assert self._begun.wait(20.0)

    async def _serve(self, port: int, token: str) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        server = Server(self.hub, self._act, port=port, token=token)
        await server.start()
        self.port, self.address = server.port, server.address
        self._begun.set()
        number = 0
        while not self._end.is_set():
            number += 1
            stamp = time.time()
            for camera in ("front", "wrist"):
                self.picture(LIVE, camera, stamp, 10 * number % 250)
                self.picture(PREDICTED, camera, stamp + 0.5, 200)
            await asyncio.sleep(0.1)
        await server.stop()

    async def _act(self, asked):
        self.asked.append(asked)
        if asked.get("do") == "engage_policy":
            self.mode("POLICY", "policy engaged")
        if asked.get("do") == "hold":
            self.mode("HOLD", "hold")
        return True, "done"

    def mode(self, mode: str, reason: str) -> None:
        self.hub.tell(News("mode", mode))
        self.hub.tell(News("reason", reason))

    def picture(self, kind: int, camera: str, stamp: float, grey: int) -> None:
        jpeg = as_jpeg(np.full((48, 64, 3), grey, np.uint8))
        header = struct.pack("<BBd", kind, len(camera), stamp) + camera.encode()
        self.hub.tell(News(f"{kind}/{camera}", None, header + jpeg))

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join(10.0)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield opened
        opened.close()


@pytest.fixture
def graph():
    made = Graph()
    yield made
    made.close()


@pytest.fixture
def page(browser, graph):
    opened = browser.new_page(bypass_csp=True, viewport={"width": 1280, "height": 900})
    opened.errors = []
    opened.on("pageerror", lambda error: opened.errors.append(str(error)))
    opened.goto(graph.address)
    opened.wait_for_function("document.querySelector('#mode-name').textContent === 'HOLD'")
    yield opened
    assert not opened.errors
    opened.close()


PIXEL = "document.querySelectorAll('canvas')[0].getContext('2d').getImageData(5, 5, 1, 1).data[0]"


def test_the_picture_moves_and_is_held_against_what_was_foreseen(page):
    first = page.evaluate(PIXEL)
    page.wait_for_function(f"{PIXEL} !== {first}")
    page.wait_for_function("document.querySelector('.camera figure:last-child span').textContent.endsWith('%')")


PRESSES = "() => { const b = document.querySelector('#engage'); b.click(); b.click(); }"  # at once, however busy all is


def test_engage_takes_two_presses_and_hold_one(page, graph):
    page.keyboard.press("e")
    page.wait_for_selector("#engage.armed")
    page.wait_for_selector("#engage:not(.armed)")  # a press alone is forgotten
    assert graph.asked == []
    page.evaluate(PRESSES)
    page.wait_for_function("document.querySelector('#mode').dataset.mode === 'POLICY'")
    page.keyboard.press("h")
    page.wait_for_function("document.querySelector('#mode').dataset.mode === 'HOLD'")
    assert graph.asked == [{"do": "engage_policy"}, {"do": "hold"}]


def test_letters_in_a_sentence_press_no_button(page, graph):
    page.fill("#sentence", "")
    page.type("#sentence", "she sees the rest")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#sentence').value === ''")
    assert graph.asked == [{"say": "she sees the rest"}]


def test_a_knob_and_a_label(page, graph):
    page.click("#knobs-card summary")
    page.fill("#knob-policy_node-denoise_steps", "4")
    page.keyboard.press("Tab")
    page.click("[data-do=success]")
    page.wait_for_function("document.querySelector('#answer').textContent === 'done'")
    assert {"set": "denoise_steps", "of": "policy_node", "to": 4} in graph.asked and {"do": "success"} in graph.asked


def test_a_hold_of_the_monitor_asks_the_operator(page, graph):
    graph.mode("HOLD", "monitor: what the wrist camera sees was not foreseen")
    page.wait_for_selector("#ask:not([hidden])")
    assert "wrist camera" in page.inner_text("#ask-reason")


def test_two_look_at_once_and_see_the_same(page, graph, browser):
    second = browser.new_page(bypass_csp=True)
    second.goto(graph.address)
    second.wait_for_selector("#link[data-on=true]")
    graph.mode("STOPPED", "stop was called")
    for one in (page, second):
        one.wait_for_function("document.querySelector('#mode-name').textContent === 'STOPPED'")
        first = one.evaluate(PIXEL)
        one.wait_for_function(f"{PIXEL} !== {first}")
    second.close()


def test_the_page_comes_back_with_the_server(page, graph):
    graph.close()
    page.wait_for_selector("#link[data-on=false]")
    again = Graph(port=graph.port)
    page.wait_for_selector("#link[data-on=true]")
    first = page.evaluate(PIXEL)
    page.wait_for_function(f"{PIXEL} !== {first}")
    again.close()


def test_without_the_token_there_is_nothing(browser):
    guarded = Graph(token="s3cret")
    page = browser.new_page()
    assert page.goto(f"http://127.0.0.1:{guarded.port}/").status == 403
    page.goto(guarded.address)
    page.wait_for_selector("#link[data-on=true]")
    assert "s3cret" not in page.url
    page.close()
    guarded.close()


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 1280), ("light", 820), ("dark", 390)])
def test_everything_has_a_name_a_way_for_the_keys_and_can_be_read(browser, graph, theme, width):
    window = {"width": width, "height": 900}
    page = browser.new_page(bypass_csp=True, color_scheme=theme, reduced_motion="reduce", viewport=window)
    page.goto(graph.address)
    page.wait_for_selector("#link[data-on=true]")
    page.click("#knobs-card summary")
    page.wait_for_selector("#knob-policy_node-denoise_steps")
    audit = Path(__file__).with_name("audit.js").read_text()
    for mode in ("HOLD", "POLICY", "STOPPED", "TELEOP"):
        graph.mode(mode, "so it is")
        page.wait_for_function(f"document.querySelector('#mode').dataset.mode === '{mode}'")
        assert page.evaluate(audit) == [], mode
    page.keyboard.press("b")
    assert page.evaluate(audit) == [], "in large letters"
    page.close()


def test_the_tab_key_comes_by_every_button_of_the_arm(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    passed = []
    for _ in range(5):
        page.keyboard.press("Tab")
        passed.append(page.evaluate("document.activeElement.id"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"  # it is seen
    assert passed == ["engage", "hold", "stop", "reset", "sentence"]
