"""The page in a browser: over the demonstration's plant, and over a store whose engine has gone."""

import json
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from tests.integration.browser import PHONE, chromium, visit  # noqa: F401 (a fixture)
from tests.integration.test_api_process import ask
from tests.integration.test_cli import RunningPlant, write_plant

from headrace.api.settings import ApiSettings

# Where kernels are not cached yet, they are compiled first.


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The address of a running demonstration."""
    store = tmp_path_factory.mktemp("page") / "store"
    command = [sys.executable, "-m", "headrace.cli.main", "demo", "--json", "--store", str(store)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stderr:
            found = re.search(r"it answers at (http\S+), where its page is", line)
            if found:
                break
        else:
            raise AssertionError(f"it ended with {process.wait()}")
        address = found[1]
        end = time.monotonic() + 60
        while json.loads(ask(address, "/api/v1/status")[1])["samples"]["stored"] < 5_000:
            assert time.monotonic() < end, "no samples came"
            time.sleep(0.2)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def newest(page, path):
    return page.locator(f'.hr-newest-value[data-path="{path}"] b').inner_text()


def painted(page):
    """How many different colours the chart's canvas has."""
    return page.evaluate(
        """() => { const canvas = document.querySelector(".hr-canvas canvas");
        const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        const found = new Set(); for (let i = 0; i < data.length; i += 4) found.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
        return found.size; }"""
    )


def charted(page):
    return [cell.get_attribute("data-path") for cell in page.locator(".hr-newest-value").all()]


def test_live_values_appear_and_change(chromium, demo):  # noqa: F811
    with visit(chromium, demo) as seen:
        page = seen.page
        page.wait_for_selector(".hr-newest-value")
        paths = charted(page)
        assert len(paths) == 4
        before = [newest(page, path) for path in paths]
        page.wait_for_function(
            "was => [...document.querySelectorAll('.hr-newest-value b')].some((b, i) => b.innerText !== was[i])",
            arg=before,
        )
        assert painted(page) > 10
        page.wait_for_function("() => /^[1-9]/.test(document.querySelector('.hr-value').innerText)")
        assert page.locator(".hr-state").inner_text() == "running"
        assert page.locator(".hr-lights .hr-light.good").count() == 6
        assert "now" in page.locator(".hr-lights .hr-age").first.inner_text()


def test_a_sensor_found_by_search_is_charted_and_kept_in_the_address(chromium, demo):  # noqa: F811
    with visit(chromium, f"{demo}/?s=") as seen:
        page = seen.page
        page.get_by_text("Choose sensors to chart them").wait_for()
        page.wait_for_selector(".hr-row")
        page.keyboard.press("/")
        page.keyboard.type("line2 OVEN temperature_2")
        page.wait_for_selector(".hr-row.flat")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.wait_for_selector(".hr-newest-value")
        (path,) = charted(page)
        assert re.fullmatch(r"leon/paint/line2/oven\d+/temperature_2", path)
        page.wait_for_function("() => location.search.includes('temperature_2')")
        page.reload()
        page.wait_for_selector(".hr-newest-value")
        assert charted(page) == [path]
        assert float(newest(page, path)) > 0
        page.get_by_role("button", name=f"Take {path} off").click()
        page.get_by_text("Choose sensors to chart them").wait_for()


def test_search_says_when_nothing_matches_and_takes_patterns(chromium, demo):  # noqa: F811
    with visit(chromium, demo) as seen:
        search = seen.page.get_by_role("searchbox", name="Search sensors")
        search.fill("no such sensor")
        seen.page.get_by_text("No sensor has “no such sensor” in its path").wait_for()
        search.fill("leon/*/line1/oven1/{power,mode}")
        seen.page.get_by_text("2 found").wait_for()


def test_the_tree_opens_by_key_level_by_level(chromium, demo):  # noqa: F811
    with visit(chromium, f"{demo}/?s=") as seen:
        page = seen.page
        tree = page.get_by_role("tree")
        tree.get_by_role("treeitem", name=re.compile("^line1,")).wait_for()
        tree.focus()
        for key in ("ArrowDown", "ArrowDown"):
            page.keyboard.press(key)
        line = tree.locator('[aria-level="3"]').first
        assert line.get_attribute("aria-expanded") == "false"
        page.keyboard.press("ArrowRight")
        device = tree.locator('[aria-level="4"]').first
        device.wait_for()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        tree.locator('[aria-level="5"]').first.wait_for()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        page.wait_for_selector(".hr-newest-value")
        assert tree.locator('[aria-level="5"][aria-selected="true"]').count() == 1
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        assert device.get_attribute("aria-expanded") == "false"


def test_looking_closer_and_following_the_present(chromium, demo):  # noqa: F811
    with visit(chromium, demo) as seen:
        page = seen.page
        page.wait_for_selector(".hr-newest-value")
        box = page.locator(".hr-canvas").bounding_box()
        middle = box["y"] + 80
        page.mouse.move(box["x"] + box["width"] - 220, middle)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] - 60, middle, steps=4)
        page.mouse.up()
        page.wait_for_function("() => location.search.includes('from_ms')")
        live = page.get_by_role("button", name="Live")
        assert live.get_attribute("aria-pressed") == "false"
        page.wait_for_function(
            "() => /^1(\\.\\d)? min/.test(document.querySelector('.hr-resolution').innerText)"
        )
        page.keyboard.press("l")
        page.wait_for_function("() => location.search.includes('last=')")
        assert live.get_attribute("aria-pressed") == "true"
        page.get_by_role("button", name="7d").click()
        page.wait_for_function("() => document.querySelector('.hr-resolution').innerText.startsWith('7 d')")


def test_an_adapters_devices_and_the_keys_are_shown(chromium, demo):  # noqa: F811
    with visit(chromium, demo) as seen:
        page = seen.page
        page.get_by_role("button", name=re.compile("^oven, connected")).click()
        sheet = page.get_by_role("dialog", name=re.compile("oven"))
        sheet.get_by_text("8 of 8").wait_for()
        sheet.get_by_role("searchbox", name="Filter devices").fill("line1")
        sheet.get_by_text("2 of 8").wait_for()
        page.keyboard.press("Escape")
        sheet.wait_for(state="hidden")
        page.keyboard.press("?")
        page.get_by_role("dialog", name="Keys").wait_for()


def test_a_phones_width_is_enough(chromium, demo):  # noqa: F811
    with visit(chromium, demo, PHONE) as seen:
        page = seen.page
        page.wait_for_selector(".hr-newest-value")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert painted(page) > 10
        page.get_by_role("button", name="Sensors").click()
        page.get_by_role("treeitem", name=re.compile("^line1,")).wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_dark_and_light_follow_the_system_and_can_be_chosen(chromium, demo):  # noqa: F811
    def back(page):
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    with visit(chromium, demo) as light, visit(chromium, demo, scheme="dark") as dark:
        for one in (light, dark):
            one.page.wait_for_selector(".hr-newest-value")
            assert painted(one.page) > 10
        shades = [sum(map(int, re.findall(r"\d+", back(one.page)))) for one in (light, dark)]
        assert shades[0] > 600
        assert shades[1] < 150
        chosen = back(dark.page)
        light.page.keyboard.press("t")
        light.page.keyboard.press("t")
        light.page.wait_for_function(
            "was => getComputedStyle(document.body).backgroundColor === was", arg=chosen
        )
        light.page.reload()
        light.page.wait_for_selector(".hr-newest-value")
        assert back(light.page) == chosen


def test_what_is_not_there_is_a_problem_not_a_page(demo):
    status, text = ask(demo, "/no/such/page")
    assert (status, json.loads(text)["code"]) == (404, "not-found")


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory):
    """The address of an api process whose engine does not answer any more, over what it has stored."""
    folder = tmp_path_factory.mktemp("left")
    write_plant(folder)
    with RunningPlant(folder) as plant:
        address = plant.address(folder)
        plant.wait_for(
            folder, lambda: json.loads(ask(address, "/api/v1/status")[1])["samples"]["stored"] == 240
        )
        plant.stop()
    with socket.socket() as public, socket.socket() as nobody:
        for one in (public, nobody):
            one.bind(("127.0.0.1", 0))
        public.listen()
        settings = ApiSettings(
            store=str(folder / "store"), control=f"http://127.0.0.1:{nobody.getsockname()[1]}", key="k", pid=1,
            fd=public.fileno(), timezone="Europe/Madrid",
        )  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-m", "headrace.api"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[public.fileno()],
        )
        process.stdin.write(settings.to_json().encode() + b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"ready\n"
        yield f"http://127.0.0.1:{public.getsockname()[1]}"
        process.stdin.close()
        process.wait(20)
        process.stdout.close()


def test_without_its_engine_the_page_says_so_and_shows_what_is_stored(chromium, left_behind):  # noqa: F811
    start_ms = 1_772_431_200_000
    path = "leon/paint/line1/oven1/inlet"
    with visit(chromium, f"{left_behind}/?s={path}&from_ms={start_ms}&to_ms={start_ms + 120_000}") as seen:
        page = seen.page
        page.get_by_role("alert").get_by_text("The engine has not answered").wait_for()
        page.wait_for_function("() => document.querySelector('.hr-newest-value b')?.innerText === '191.9'")
        assert painted(page) > 5
        assert page.locator(".hr-figure", has_text="Sensors").locator(".hr-value").inner_text() == "2"
        page.get_by_role("treeitem", name=re.compile("^oven1,")).wait_for()
