"""A user's way through Dagster's UI and the report pages, in a real browser; each stop can leave a picture."""

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from drive_assets.asset import GROUPS
from drive_assets.running.home import prepare_home
from drive_assets.running.ui import TOKEN
from drive_assets_tests.test_definitions import EXPECTED

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
WAIT_S = 180
"""For what a busy machine shows at last."""
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-quic", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip
MOST_BYTES = 200_000
"""Of a picture in the documentation"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, server: "subprocess.Popen[bytes]", seconds: float = 450) -> str:
    """What an address answers to whoever has the token, once it does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError):
            request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token()}"})
            with urllib.request.urlopen(request, timeout=5) as answer:
                return str(answer.read().decode())
        time.sleep(1)
    raise AssertionError(f"{url} did not answer; exit status {server.poll()}")


def token() -> str:
    """The token of the UI; empty if only other servers were started."""
    path = prepare_home() / TOKEN
    return path.read_text() if path.is_file() else ""


@contextmanager
def served() -> Iterator[dict[str, str]]:
    """`drive-assets ui` on free ports: the addresses of dagster, mlflow and reports, once they answer."""
    ports = {"port": free_port(), "mlflow-port": free_port(), "reports-port": free_port()}
    options = [text for name, port in ports.items() for text in (f"--{name}", str(port))]
    server = subprocess.Popen([sys.executable, "-m", "drive_assets.cli", "ui", *options])
    dagster, mlflow, reports = (f"http://127.0.0.1:{port}" for port in ports.values())
    try:
        assert "dagster_webserver_version" in wait_for(f"{dagster}/server_info", server)
        assert "Reports" in wait_for(f"{reports}/", server)
        assert wait_for(f"{mlflow}/health", server) == "OK"
        yield {"dagster": dagster, "mlflow": mlflow, "reports": reports}
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(240)


@contextmanager
def browser(profile: Path, width: int = 1440, height: int = 900) -> Iterator[webdriver.Chrome]:
    """Chromium without a screen, with a profile of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in (*FLAGS, f"--window-size={width},{height}", f"--user-data-dir={profile}"):
        options.add_argument(flag)
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER))) as driver:
        yield driver


class Walk:
    """Stops of the way, from the address with the token on. Each waits for what it is about to see."""

    def __init__(self, driver: webdriver.Chrome, dagster: str, pictures: Path | None = None) -> None:
        self.driver, self.dagster, self.pictures = driver, dagster, pictures
        driver.get(f"{dagster}/?token={token()}")

    def graph(self) -> None:
        """The whole asset graph, all groups open."""
        expanded = quote(",".join(f"global@global:{group}" for group in GROUPS))
        self.driver.get(f"{self.dagster}/asset-groups/?expanded={expanded}")
        for name in EXPECTED:
            self.see(f"//*[text()='{name}']")
        self.take("graph")

    def materialize(self, asset: str, partition: str, launch: bool = True) -> None:
        """One partition from the launchpad, or only up to there."""
        self._launchpad(asset)
        self.click("//*[contains(text(),'Select a partition or')]")
        self.see("//input[@placeholder='Filter partitions']").send_keys(partition)
        self.click("//*[@role='menu']//label//*[@role='menuitem']")
        self.click("//*[text()='Partition selection']")
        self.see("//button[contains(.,'Launch') and not(@disabled)]")
        self.take("launchpad")
        if launch:
            self.click("//button[contains(.,'Launch') and not(@disabled)]")

    def backfill(self, asset: str) -> None:
        """All partitions of an asset that are missing."""
        self._launchpad(asset)
        self.click("//button[.='Missing']")
        self.see("//button[contains(.,'Launch') and not(@disabled)]")
        self.take("backfill")
        self.click("//button[contains(.,'Launch') and not(@disabled)]")

    def switch_on(self, sensor: str) -> None:
        """A sensor or schedule that is off."""
        self.driver.get(f"{self.dagster}/automation")
        row = f"//*[text()='{sensor}']/ancestor::*[contains(@class,'VirtualizedTable_row')][1]"
        label, box = (
            f"{row}//label[contains(@class,'formatSwitch')]",
            f"{row}//label[contains(@class,'formatSwitch')]/input",
        )
        self.click(label)
        WebDriverWait(self.driver, WAIT_S).until(lambda driver: driver.find_element(By.XPATH, box).is_selected())

    def automation(self) -> None:
        """What runs by itself."""
        self.driver.get(f"{self.dagster}/automation")
        self.see("//label[contains(@class,'formatSwitch')]")
        self.take("automation")

    def check(self, asset: str, name: str, words: str) -> None:
        """What a check found."""
        self.driver.get(f"{self.dagster}/assets/{asset}?view=checks&checkDetail={name}")
        self.see(f"//*[contains(text(),'{words}')]")
        self.take(f"check_{name}")

    def metadata(self, asset: str, partition: str) -> str:
        """A partition's metadata; the address of its report page, which is linked there."""
        self.driver.get(f"{self.dagster}/assets/{asset}?view=partitions&partition={quote(partition)}")
        link = self.see(
            f"//a[contains(@href,'/{asset}/{partition}') and starts-with(@href,'http') and @target='_blank']"
        )
        self.take(f"metadata_{asset}")
        return str(link.get_attribute("href"))

    def mlflow(self, address: str) -> None:
        """What MLflow opens on, by the address that `drive-assets ui` prints: the table of trainings."""
        self.driver.get(address)
        self.see("//*[text()='Model training']")
        self.see("//button[contains(.,'Group by')]")
        assert "Token usage" not in self.driver.page_source

    def job(self, name: str) -> None:
        """The launchpad of a job, whose config stands filled in."""
        self.driver.get(f"{self.dagster}/locations/drive_assets.definitions/jobs/{name}/playground")
        self.see("//*[contains(text(),'checkpoint')]")
        self.see("//*[text()='No errors']")

    def page(self, address: str, name: str) -> str:
        """A report page; its title."""
        self.driver.get(address)
        title = self.see("//h1").text
        width = self.driver.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
        assert width <= 0, f"{address} is {width} px too wide"
        self.take(name)
        return title

    def reports(self, names: list[str]) -> None:
        """From a report page to the start page, sorted and filtered, and from recording to recording."""
        self.click("//nav/a[.='All reports']")
        self.click("//th/a[starts-with(.,'recording')]")
        self.see(f"//tbody/tr[1]//a[.='{names[-1]}']")
        self.see("//input[@name='search']").send_keys(names[0][:10])
        self.click("//button[.='Show']")
        self.see("//p[starts-with(.,'1 of ')]")
        self.click(f"//td/a[.='{names[0]}']")
        for name in names[1:]:
            self.click("//nav/a[.='next recording']")
            self.see(f"//h1[.='Recording {name}']")

    def plot(self, asset: str) -> None:
        """The metadata of an asset over time."""
        self.driver.get(f"{self.dagster}/assets/{asset}")
        self.click("//button[.='Plots']")
        canvas = self.see("//canvas")
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
        self.take(f"plot_{asset}")

    def see(self, xpath: str, seconds: float = WAIT_S) -> WebElement:
        """The first element that is shown, once there is one."""

        def shown(driver: webdriver.Chrome) -> WebElement | None:
            found = driver.find_elements(By.XPATH, xpath)
            return next((element for element in found if element.is_displayed()), None)

        wait = WebDriverWait(self.driver, seconds, ignored_exceptions=[StaleElementReferenceException])
        return wait.until(shown, f"{xpath} is not to be seen on {self.driver.current_url}")

    def click(self, xpath: str) -> None:
        self.see(xpath)
        WebDriverWait(self.driver, WAIT_S).until(lambda driver: self._clicked(xpath))

    def take(self, name: str) -> None:
        """A picture of what is shown, at most `MOST_BYTES`."""
        if self.pictures is None:
            return
        self.driver.implicitly_wait(0)
        WebDriverWait(self.driver, WAIT_S).until(lambda d: not d.find_elements(By.CSS_SELECTOR, "[class*=Spinner]"))
        image = cv2.imdecode(np.frombuffer(self.driver.get_screenshot_as_png(), np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        path = self.pictures / f"{name}.png"
        for colours in (256, 64, 16):
            _save(image, path, colours)
            if path.stat().st_size <= MOST_BYTES:
                return

    def _launchpad(self, asset: str) -> None:
        self.driver.get(f"{self.dagster}/assets/{asset}")
        title = "//*[contains(text(),'Launch runs to materialize')]"
        WebDriverWait(self.driver, WAIT_S).until(
            lambda driver: self._clicked("//button[contains(.,'Materialize')]", title)
        )
        self.see("//button[contains(.,'Add a partition')]")  # once the partitions are known

    def _clicked(self, xpath: str, then: str = "") -> bool:
        """Whether the click succeeded and then shows `then`: a page that is still loading ignores clicks."""
        try:
            self.see(xpath).click()
            if then:
                self.see(then, 20)
        except WebDriverException:  # it was drawn anew in between, something covers it, or nothing came of it
            return False
        return True


def _save(image: np.ndarray, path: Path, colours: int) -> None:
    from PIL import Image

    Image.fromarray(image[..., ::-1]).quantize(colours, method=Image.Quantize.MEDIANCUT).save(path, optimize=True)
