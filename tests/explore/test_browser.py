"""Pages of `llmdirect explore` in Chromium; run by `make test-browser` only."""

import shutil
import threading
from collections.abc import Iterator

import pytest
import uvicorn
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

import tiny
from llmdirect.data.prepare import prepare
from llmdirect.encoding.precompute import precompute
from llmdirect.explanation.explainer import Explainer
from llmdirect.explore.app import make_app
from llmdirect.ranking.top_k import rank
from llmdirect.runs.inputs import load_run_encoder
from llmdirect.store.consolidation import consolidate
from run_helpers import fit, write_reviews

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Explainer, str]:
    """Run on embeddings of a tiny T5Gemma, and the path of the model."""
    folder = tmp_path_factory.mktemp("browser")
    checkpoint, _ = tiny.build("t5gemma", folder)
    prepare(write_reviews(folder / "reviews.json"), folder / "data")
    precompute(folder / "data", encoder=str(checkpoint), device="cpu")
    consolidate(folder / "data")
    fit(folder / "data", folder / "run", num_epochs=2)
    return Explainer.open(folder / "run"), str(checkpoint)


@pytest.fixture(scope="module")
def site(run: tuple[Explainer, str]) -> Iterator[str]:
    """Address of the pages, served from a thread of this process."""
    explainer, checkpoint = run
    app = make_app(explainer, lambda: load_run_encoder(explainer.trained.run, checkpoint, "cpu"))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        thread.join(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert path, "chromium is missing: install it (Debian: apt-get install chromium) to run these tests"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture(params=[390, 1280])
def page(chromium: Browser, site: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """Page of this width; fails on console messages or clipped text."""
    context = chromium.new_context(
        viewport={"width": request.param, "height": 900}, base_url=site, reduced_motion="reduce"
    )
    page = context.new_page()
    console_messages: list[str] = []

    def record_message(message: ConsoleMessage) -> None:
        console_messages.append(message.text)

    page.on("console", record_message)
    page.on("pageerror", lambda error: console_messages.append(str(error)))
    yield page
    assert console_messages == []
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= request.param, f"the page is {width} wide on a screen of {request.param}"
    context.close()


def shown(page: Page) -> list[str]:
    return page.locator(".rec").evaluate_all("rows => rows.map(row => row.dataset.item)")


def open_sliders(page: Page) -> None:
    if not page.locator(".slider").first.is_visible():
        page.get_by_text("What if").click()


def test_keyboard_search_opens_list_and_explanation(page: Page) -> None:
    page.goto("/")
    page.get_by_role("searchbox", name="Find a user or an item").press_sequentially("u3")
    expect(page.locator("#found a").first).to_have_text("u3")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("u3")
    first = page.locator(".rec summary").first
    first.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".rec .reason").first).to_contain_text("typical candidate")
    expect(page.locator(".rec mark").first).to_be_visible()
    styles = page.locator(".rec mark.for, .rec mark.against").evaluate_all(
        "marks => marks.map(mark => [mark.classList[0], getComputedStyle(mark).textDecorationStyle])"
    )
    assert {style for sign, style in styles if sign == "for"} <= {"solid"}
    assert {style for sign, style in styles if sign == "against"} <= {"dashed"}
    page.get_by_role("link", name="Every figure of this explanation").first.click()
    expect(page.get_by_role("heading", name="How the score adds up")).to_be_visible()


def test_slider_reorders_list(page: Page, run: tuple[Explainer, str]) -> None:
    page.goto("/user?user=u5")
    before = shown(page)
    open_sliders(page)
    slider = page.locator(".slider input").first
    aspect = int(str(slider.get_attribute("name"))[1:])
    slider.focus()
    page.keyboard.press("End")
    expect(page.locator(".slider output").first).to_have_text("\N{MULTIPLICATION SIGN}3")
    page.wait_for_url(f"**a{aspect}=3*")
    trained = run[0].trained
    user = trained.user_idx("u5")
    changed = trained.with_interests(user, {aspect: 3.0})
    lists = rank(changed.tables, [user], k=20, seen=changed.users.seen)
    after = [trained.item_ids[item] for item in lists.items[0].tolist() if item >= 0]
    assert shown(page) == after != before
    expect(page.locator("#status")).to_contain_text("moved")
    page.reload()
    assert shown(page) == after
    open_sliders(page)
    page.get_by_role("link", name="As learned").click()
    page.wait_for_url("**/user?user=u5")
    assert shown(page) == before


def test_slider_updates_open_explanation(page: Page) -> None:
    page.goto("/user?user=u5")
    page.locator(".rec summary").first.click()
    reason = page.locator(f'.rec[data-item="{shown(page)[0]}"] .reason')
    expect(reason).to_be_visible()
    before = reason.inner_text()
    open_sliders(page)
    page.get_by_label("without popularity").check()
    expect(reason).not_to_have_text(before)
    expect(reason).to_be_visible()


def test_pasted_review_and_picked_item_produce_list(page: Page) -> None:
    page.goto("/new")
    text = "warm sound & <b>bright</b> strings"
    page.get_by_role("textbox", name="In your own words").fill(text)
    page.get_by_role("searchbox", name="Find an item you liked").press_sequentially("i13")
    page.locator("#found-items input").first.check()
    expect(page.locator('#picks input[value="i13"]')).to_be_checked()
    page.get_by_role("button", name="Recommend").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Your list")
    expect(page.locator("blockquote")).to_have_text(text)
    assert "i13" not in shown(page)
    assert len(shown(page)) == 13


def test_two_selected_items_are_compared(page: Page) -> None:
    page.goto("/user?user=u2")
    boxes = page.locator(".pick input")
    boxes.nth(0).check()
    expect(page.get_by_role("button", name="Pick one more to compare")).to_be_disabled()
    boxes.nth(2).check()
    first, _, third = shown(page)[:3]
    page.get_by_role("button", name="Compare the two").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"{first} is ahead of {third}")


def test_forms_work_without_javascript(chromium: Browser, site: str) -> None:
    context = chromium.new_context(java_script_enabled=False, base_url=site)
    page = context.new_page()
    page.goto("/user?user=u5")
    page.locator(".slider input").first.press("End")
    page.get_by_role("button", name="Apply").click()
    assert "=3" in page.url
    page.locator(".rec summary").first.click()
    page.get_by_role("link", name="Why this item").first.click()
    expect(page.get_by_role("heading", name="How the score adds up")).to_be_visible()
    context.close()


CONTRAST = """() => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const element of document.querySelectorAll("main *, header *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.getClientRects().length || element.closest("svg, .unseen, .skip")) continue;
    const style = getComputedStyle(element);
    const [one, two] = [light(parse(style.color)), light(behind(element))];
    const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    if (ratio < 4.5) low.push([element.className, element.textContent.slice(0, 30), ratio]);
  }
  return low;
}"""
"""Elements whose text has less than 4.5 : 1 to what is behind it (WCAG 2, AA)."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrast_in_light_and_dark_scheme(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    for address in ("/", "/user?user=u1&a0=2", "/aspects", "/item?id=i3", "/explain?user=u1&item=i3"):
        page.goto(address)
        if address.startswith("/user"):
            page.locator(".rec summary").first.click()
            expect(page.locator(".rec mark").first).to_be_visible()
        dark = page.evaluate("parseInt(getComputedStyle(document.body).backgroundColor.slice(4)) < 128")
        assert dark == (scheme == "dark")
        assert page.evaluate(CONTRAST) == []
