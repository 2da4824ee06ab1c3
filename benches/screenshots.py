"""Screenshots of a run for the README: `make screenshots RUN=demo/synthetic/run` writes docs/images."""

import shutil
import sys
import tempfile
import threading
from pathlib import Path

import uvicorn
from playwright.sync_api import sync_playwright

from llmdirect.explanation.explainer import Explainer
from llmdirect.explore.app import make_app
from llmdirect.reports.run_report import report
from llmdirect.runs.inputs import load_run_encoder

IMAGES = Path(__file__).parent.parent / "docs" / "images"


def main(run: Path) -> None:
    """Opens the best item of the first user in a wide light page and in a narrow dark one."""
    explainer = Explainer.open(run)
    app = make_app(explainer, lambda: load_run_encoder(explainer.trained.run, None, "cpu"))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.02)
    site = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        for name, width, height, scheme in (
            ("explore", 1280, 900, "light"),
            ("explore-phone", 390, 844, "dark"),
        ):
            page = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
            )
            page.goto(site)
            page.locator('a[href^="/user"]').first.click()
            page.locator(".rec summary").first.click()
            page.locator(".rec mark").first.wait_for()
            if width < 600:
                page.locator("#list-name").scroll_into_view_if_needed()
                page.evaluate("document.querySelector('#list-name').scrollIntoView()")
                page.evaluate("window.scrollBy(0, -110)")
            page.screenshot(path=IMAGES / f"{name}.png")
        report(run, Path(folder) / "report.html")
        page = browser.new_page(viewport={"width": 1280, "height": 1240})
        page.goto((Path(folder) / "report.html").as_uri())
        page.screenshot(path=IMAGES / "report.png")
        browser.close()
    server.should_exit = True
    thread.join()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
