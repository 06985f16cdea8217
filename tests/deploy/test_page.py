"""The page in a real browser, against a real server with tiny models: tasks, keyboard, widths, languages, what it never does.

Screenshots go to the directory that ELECTRA_SCREENSHOTS names, else to pytest's temporary one.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from electra.deploy.served import ServedModel, open_models

CHROMIUM = Path("/usr/bin/chromium")
if not CHROMIUM.exists():
    pytest.skip("there is no browser: apt-get install chromium", allow_module_level=True)
api = pytest.importorskip("playwright.sync_api")

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
#: model of tests/deploy/conftest.py -> its task, and what its result must hold
SHOWN = {
    "sentiment": ("classify", ".bars li >> nth=1"),
    "topics": ("multilabel", ".bars li >> nth=1"),
    "similar": ("regression", ".figure"),
    "names": ("tag", ".passage"),
    "answers": ("span", ".rows .row"),
    "relations": ("relation", "svg .node"),
    "endings": ("choice", ".bars .strong"),
    "vectors": ("embed", ".bars .strong"),
    "pair": ("replaced", ".token"),
    "writer": ("generate", ".written"),
}
PLANTED = "<img src=x onerror='window.planted=1'><script>window.planted=1</script> [x] {y}"


@dataclass
class Visit:
    """A page, and what its browser saw."""

    page: Any
    address: str
    asked: list[Any] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def posts(self) -> list[str]:
        return [request.post_data for request in self.asked if request.method == "POST"]

    def choose(self, model: str, mode: str | None = None) -> None:
        self.page.locator(f"#models input[value='{model}']").check(force=True)
        if mode is not None:
            self.page.locator(f"#modes input[value='{mode}']").check(force=True)

    def run(self) -> None:
        """Press Run, and wait until there is a result or a trouble."""
        self.page.locator("#run").click()
        api.expect(self.page.locator("#result .figures, #trouble:visible").first).to_be_visible()

    def status(self) -> Any:
        return self.page.locator("#status")

    def trouble(self) -> Any:
        return self.page.locator("#trouble")


@pytest.fixture(scope="module")
def browser(server: Any) -> Iterator[Any]:
    """Chromium; the server's process is older, so that it is forked from one without a browser."""
    api.expect.set_options(timeout=20_000)
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


Open = Callable[..., Visit]


@pytest.fixture
def visit(browser: Any, server: Any) -> Iterator[Open]:
    """Open the page. When the test ends, no request may have left the host and the console must have stayed silent."""
    visits: list[Visit] = []

    def begin(port: int = server.port, link: str = "", width: int = 1280, loaded: bool = True, **options: Any) -> Visit:
        context = browser.new_context(viewport={"width": width, "height": 800}, **{"locale": "en-GB", **options})
        context.set_default_timeout(20_000)
        one = Visit(context.new_page(), f"http://127.0.0.1:{port}")
        one.page.on("request", lambda request: one.asked.append(request))  # no built-in: playwright marks what it is given
        one.page.on("console", lambda message: one.said.append(message.text) if message.type in ("error", "warning") else None)
        one.page.on("pageerror", lambda error: one.said.append(str(error)))
        one.page.goto(f"{one.address}/{link}")
        if loaded:
            one.page.wait_for_selector("#run")
        visits.append(one)
        return one

    yield begin
    for one in visits:
        addresses = {f"{parts.scheme}://{parts.netloc}" for parts in (urlsplit(request.url) for request in one.asked)}
        one.page.context.close()
        assert addresses == {one.address}
        assert one.said == []


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    place = Path(os.environ.get("ELECTRA_SCREENSHOTS") or tmp_path)
    place.mkdir(parents=True, exist_ok=True)
    return place


def test_every_task_is_shown_in_its_own_way(visit: Open, pictures: Path) -> None:
    """In one browser window, one model after the other; at last all of them at 360 pixels, in Chinese and dark."""
    wide, narrow = visit(), visit(width=360, locale="zh-CN", color_scheme="dark")
    names = wide.page.locator("#models input").evaluate_all("nodes => nodes.map(node => node.value)")
    assert sorted(names) == sorted(SHOWN)
    for one, kind in ((wide, "1280-en-light"), (narrow, "360-zh-dark")):
        for model, (task, selector) in SHOWN.items():
            one.choose(model)
            one.page.locator("#examples button").first.click()
            one.run()
            api.expect(one.page.locator(f"#result {selector}").first).to_be_visible()
            api.expect(one.page.locator("#result")).to_contain_text(re.compile(r"\d m?s"))
            assert one.page.evaluate("document.documentElement.scrollWidth") <= (360 if one is narrow else 1280), (task, kind)
            one.page.screenshot(path=pictures / f"{task}-{kind}.png", full_page=True)


def test_the_tasks_of_a_pre_trained_pair(visit: Open, pictures: Path) -> None:
    one = visit()
    for mode, selector in (("fill-mask", ".rows .row"), ("score", ".token"), ("correct", ".passage")):
        one.choose("pair", mode)
        one.page.locator("#examples button").first.click()
        one.run()
        api.expect(one.page.locator(f"#result {selector}").first).to_be_visible()
        one.page.screenshot(path=pictures / f"{mode}-1280-en-light.png", full_page=True)
    one.choose("pair", "fill-mask")
    one.page.locator("#field-masked").fill("the good [MASK] was [MASK]")
    one.run()
    one.page.locator("#result .row").first.click()  # goes on with the other blank
    api.expect(one.status()).to_have_text("Blanks: 1")


def test_a_proposal_is_put_in_and_taken_back(visit: Open) -> None:
    """The characters of the text are counted as Python counts them, beyond the first 65,536 too."""
    one, text = visit(), "😀 Bill was born in Seattle"
    one.choose("pair")
    one.page.locator("#field-text").fill(text)
    one.run()
    api.expect(one.page.locator(".token", has_text="born")).to_have_count(1)
    one.page.locator(".token", has_text="born").click()
    proposal = one.page.locator(".panel .row:enabled").first
    name = proposal.locator(".bar-label").inner_text()
    proposal.click()
    api.expect(one.page.locator(".trail")).to_contain_text(f"born → {name}")
    changed = one.page.locator("#field-text").input_value()
    assert changed != text
    assert changed.startswith("😀 Bill was")
    assert changed.endswith(" in Seattle")
    assert json.loads(one.posts()[1])["inputs"] == ["😀 Bill was [MASK] in Seattle"]
    assert json.loads(one.posts()[2])["inputs"] == [changed]
    one.page.locator(".trail button").click()
    api.expect(one.page.locator(".trail")).to_have_count(0)
    assert one.page.locator("#field-text").input_value() == text


def test_everything_is_reached_with_the_keyboard(visit: Open) -> None:
    """From the address bar to a proposal that is put in; wherever the focus is, it can be seen."""
    one = visit()
    keyboard = one.page.keyboard

    def tab_to(selector: str) -> None:
        for _ in range(40):
            keyboard.press("Tab")
            seen = one.page.evaluate("""() => {
                const node = document.activeElement, shown = node.matches(".chip input") ? node.nextElementSibling : node;
                return node !== document.body && getComputedStyle(shown).outlineStyle !== "none";
            }""")
            assert seen, "the focus cannot be seen"
            if one.page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"{selector} is out of reach")

    tab_to("#skip")
    tab_to("#languages [lang=zh]")
    keyboard.press("Enter")
    api.expect(one.page.locator("#run")).to_have_text("运行")
    keyboard.press("Shift+Tab")
    keyboard.press("Enter")
    api.expect(one.page.locator("#run")).to_have_text("Run")
    tab_to("#models input")
    for _ in range(list(SHOWN).index("pair")):
        keyboard.press("ArrowRight")
    tab_to("#modes input")
    tab_to("#examples button")
    keyboard.press("Enter")
    tab_to("#field-text")
    keyboard.press("Control+Enter")
    api.expect(one.page.locator(".token").first).to_be_visible()
    tab_to(".token")
    keyboard.press("End")
    keyboard.press("ArrowLeft")
    keyboard.press("Enter")
    api.expect(one.page.locator(".panel .row:focus")).to_have_count(1)
    keyboard.press("Escape")
    api.expect(one.page.locator(".panel")).to_have_count(0)
    keyboard.press(" ")
    api.expect(one.page.locator(".panel .row:focus")).to_have_count(1)
    keyboard.press("Enter")
    api.expect(one.page.locator(".trail li")).to_have_count(1)
    api.expect(one.page.locator(".token:focus")).to_have_count(1)


def test_the_language_is_the_browsers_until_another_is_chosen(visit: Open) -> None:
    one = visit(locale="zh-CN")
    assert one.page.evaluate("document.documentElement.lang") == "zh-Hans"
    assert one.page.evaluate("import('/web/words.js').then(words => words.missing())") == []
    one.choose("sentiment")
    one.page.locator("#field-text").fill("the good film")
    one.run()
    before = one.status().inner_text()
    one.page.locator("#languages [lang=en]").click()
    api.expect(one.page.locator("#run")).to_have_text("Run")
    assert one.page.locator("#field-text").input_value() == "the good film"
    assert one.status().inner_text() == before.replace("：", ": ")
    one.page.reload()
    api.expect(one.page.locator("#run")).to_have_text("Run")


def test_a_link_restores_the_input_and_sends_nothing(visit: Open) -> None:
    one, lines = visit(), "a film & more\n一部电影 😀 #2"
    one.choose("vectors")
    one.page.locator("#field-query").fill("50 % good?")
    one.page.locator("#field-lines").fill(lines)
    one.page.locator("#link").click()
    api.expect(one.status()).to_contain_text("in the address bar")
    other = visit(link=f"#{urlsplit(one.page.url).fragment}")
    assert other.page.locator("#models input:checked").input_value() == "vectors"
    assert other.page.locator("#field-query").input_value() == "50 % good?"
    assert other.page.locator("#field-lines").input_value() == lines
    assert one.posts() == other.posts() == []
    assert not [request.url for request in one.asked + other.asked if "good" in request.url]
    lost = visit(link="#model=gone&text=x")
    api.expect(lost.trouble()).to_contain_text("E-C776")


def test_no_text_is_ever_code(visit: Open) -> None:
    """What models and users say becomes text nodes; if something were planted after all, the policy stops it."""
    one = visit()
    for model, name in (("names", "text"), ("pair", "text"), ("relations", "marked"), ("writer", "prompt")):
        one.choose(model)
        one.page.locator(f"#field-{name}").fill(PLANTED)
        one.run()
        assert one.page.locator("#result img, #result script").count() == 0
    broken = one.page.evaluate("""async () => {
        const found = [];
        document.addEventListener("securitypolicyviolation", event => found.push(event.effectiveDirective));
        const script = document.createElement("script");
        script.textContent = "window.planted = 1";
        document.body.append(script);
        const box = document.createElement("div");
        box.innerHTML = "<img src='/none' onerror='window.planted = 1' style='color: red'>";
        document.body.append(box);
        await fetch("https://example.com/").catch(() => {});
        await new Promise(resolve => setTimeout(resolve, 50));
        return [window.planted ?? null, ...found.sort()];
    }""")
    assert broken[0] is None
    assert {"connect-src", "script-src-elem", "style-src-attr"} <= set(broken[1:])
    assert all("Content Security Policy" in said or "404" in said for said in one.said)
    one.said.clear()
    one.asked.clear()
    one.page.goto(one.address)


def test_what_cannot_be_answered_is_not_sent(visit: Open) -> None:
    one = visit()
    for model, values, code in (
        ("sentiment", {"text": " "}, "E-C770"),
        ("sentiment", {"text": "x" * 100_001}, "E-C771"),
        ("vectors", {"query": "a", "lines": "b\n" * 64}, "E-C772"),
        ("relations", {"marked": "[Bill] was born in {Seattle}\nno marks"}, "E-C775"),
    ):
        one.choose(model)
        for name, value in values.items():
            one.page.locator(f"#field-{name}").fill(value)
        one.run()
        api.expect(one.trouble()).to_contain_text(code)
        assert one.page.locator("[aria-invalid]").count() == 1
    assert one.posts() == []


def test_truncation_and_the_servers_errors_are_shown(visit: Open) -> None:
    one = visit()
    one.choose("sentiment")
    one.page.locator("#field-text").fill("good film " * 40)
    one.run()
    api.expect(one.page.locator(".figures .warning")).to_contain_text("did not fit")
    one.choose("answers")
    one.page.locator("#field-question").fill("\u200b")  # not blank to a browser, no token to a model
    one.page.locator("#field-context").fill("Bill was born")
    one.run()
    api.expect(one.trouble()).to_contain_text("E-D376")
    api.expect(one.trouble()).to_contain_text("inputs[0]")
    assert any("422" in said for said in one.said)
    one.said.clear()


def test_a_full_server_is_asked_again(visit: Open) -> None:
    """The first two answers are those of a server that is full; then the real one answers."""
    one, full = visit(), [0]

    def answer(route: Any) -> None:
        full[0] += 1
        if full[0] > 2:
            return route.continue_()
        error = {"code": "E-S747", "message": "full", "mend": "wait"}
        return route.fulfill(status=429, headers={"Retry-After": "0.2"}, json={"error": error})

    one.page.route("**/predict", answer)
    one.choose("sentiment")
    one.page.locator("#examples button").first.click()
    one.page.evaluate("""() => {
        window.seen = [];
        const watch = new MutationObserver(() => window.seen.push(document.getElementById("status").textContent));
        watch.observe(document.getElementById("status"), { childList: true, characterData: true, subtree: true });
    }""")
    one.run()
    seen = " ".join(one.page.evaluate("window.seen"))
    assert "asking again in 0.2 s (attempt 1 of 4)" in seen
    assert "attempt 2 of 4" in seen
    assert full == [3]
    assert all("429" in said for said in one.said)
    one.said.clear()


def test_a_key_is_asked_for_and_goes_nowhere_else(visit: Open, start: Callable[..., Any]) -> None:
    key = "a-key-of-16-characters"
    one = visit(port=start("sentiment", keys=(key,)).port, loaded=False)
    api.expect(one.page.locator("#key-field")).to_be_focused()
    api.expect(one.trouble()).to_contain_text("E-S73")
    one.page.locator("#key-field").fill(key)
    one.page.keyboard.press("Enter")
    one.page.locator("#examples button").first.click()
    one.run()
    one.page.locator("#link").click()
    assert key not in one.page.url
    assert key not in one.page.content()
    assert not [request.url for request in one.asked if key in request.url]
    assert all("401" in said for said in one.said)
    one.said.clear()


def test_writing_is_shown_as_it_comes_and_stopped(visit: Open, start: Callable[..., Any], model_dirs: dict[str, Path]) -> None:
    def slow() -> list[ServedModel]:
        """The writer, each of whose steps takes a moment."""
        models = open_models([str(model_dirs["writer"])])
        writer: Any = models[0].writer
        writer.decoder.register_forward_pre_hook(lambda *_: time.sleep(0.1))
        return models

    one = visit(port=start(models=slow).port)
    one.page.locator("#field-prompt").fill("the good film")
    one.page.locator("#run").click()
    api.expect(one.page.locator(".written")).to_have_text(re.compile("..."))
    one.page.locator("#stop").click()
    api.expect(one.status()).to_have_text("Stopped.")
    written = one.page.locator(".written").inner_text()
    assert one.page.locator("#result .figures").count() == 0
    one.page.locator("summary").click()
    one.page.locator("[name=set-max_new_tokens]").fill("2")
    one.run()
    assert one.page.locator(".prompt").inner_text() == "the good film"
    assert one.page.locator(".written").inner_text() != written
    api.expect(one.status()).to_contain_text("limit of tokens")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_and_controls_have_names(visit: Open, scheme: str) -> None:
    """Contrast of 4.5 at least (WCAG 2.2, 1.4.3) between each text and what lies behind it, tints laid over one another."""
    one = visit(color_scheme=scheme)
    for model in ("pair", "names", "relations"):
        one.choose(model)
        one.page.locator("#examples button").first.click()
        one.run()
        nameless = one.page.locator("input, textarea, button, [role=button]").evaluate_all("""nodes => nodes
            .filter(node => !(node.labels?.length || node.ariaLabel || node.textContent.trim())).map(node => node.outerHTML)""")
        assert nameless == []
        assert one.page.evaluate(CONTRAST) == []


#: texts whose contrast is too low
CONTRAST = """() => {
    const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
    const paint = canvas.getContext("2d", { willReadFrequently: true });
    const over = colours => {  // pixels of colours laid over one another, the first at the bottom
        paint.clearRect(0, 0, 1, 1);
        for (const colour of colours) { paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1); }
        return [...paint.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const linear = value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const light = pixel => [0.2126, 0.7152, 0.0722].reduce((sum, part, place) => sum + part * linear(pixel[place] / 255), 0);
    const found = [];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const node = texts.currentNode.parentElement;
        if (!texts.currentNode.data.trim() || !node.checkVisibility() || node.closest("svg, noscript, :disabled")) continue;
        const behind = [];
        for (let one = node; one; one = one.parentElement) behind.unshift(getComputedStyle(one).backgroundColor);
        const ground = light(over(behind)), ink = light(over([...behind, getComputedStyle(node).color]));
        const contrast = (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
        if (contrast < 4.5) found.push(`${texts.currentNode.data.trim().slice(0, 30)}: ${contrast.toFixed(2)}`);
    }
    return found;
}"""
