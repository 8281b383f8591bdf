"""The page in a browser: the divider follows mouse, finger and keys, and nothing is wider than a phone."""
import shutil

import numpy as np
import pytest

from jddb_plugin.visual.report import BurstReport, FailedBurst, render_report

playwright = pytest.importorskip('playwright.sync_api', reason='needs a browser driver; run: pip install playwright')
BROWSER = next(filter(None, map(shutil.which, ('chromium', 'google-chrome', 'chromium-browser'))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason='needs chromium or google-chrome on the PATH')
FLAGS = ['--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
         '--disable-sync']


@pytest.fixture(scope='module')
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope='module')
def address(tmp_path_factory):
    dark, bright = (np.full((300, 450, 3), value, np.uint8) for value in (40, 220))
    report = BurstReport('garden_' * 12, dark, bright, dark[:, :300], bright[:, :300], np.zeros((80, 1800, 3), np.uint8),
                         {'Burst': {'folder': 'x' * 90}})
    path = tmp_path_factory.mktemp('report') / 'report.html'
    path.write_text(render_report([report, FailedBurst('street', 'y' * 90)]), encoding='utf-8')
    return path.as_uri()


@pytest.fixture
def show(browser, address):
    contexts = []

    def show(width, **options):
        context = browser.new_context(viewport={'width': width, 'height': 700}, **options)
        contexts.append(context)
        page = context.new_page()
        page.complaints = []
        page.on('console', lambda message: page.complaints.append(message.text))
        page.on('pageerror', lambda error: page.complaints.append(str(error)))
        page.on('request', lambda request: request.url.startswith('data:') or page.complaints.append(request.url))
        page.goto(address)
        return page

    yield show
    for context in contexts:
        context.close()


def _split(page, index=0):
    """Where the restored picture begins, in percent of the width: as drawn, and as the range says."""
    stage = page.locator('.stage').nth(index)
    cut = stage.locator('.after').evaluate('e => getComputedStyle(e).clipPath')
    drawn = 0. if cut == 'inset(0px)' else float(cut.rstrip(')%').split()[-1])
    assert abs(drawn - float(stage.locator('input').input_value())) <= 0.5
    return drawn


@pytest.mark.parametrize('index', [0, 1], ids=['whole', 'detail'])
def test_the_divider_follows_mouse_and_keys(show, index):
    page = show(1000)
    stage = page.locator('.stage').nth(index)
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    x, y = box['x'], box['y'] + box['height'] / 3
    assert _split(page, index) == 50
    page.mouse.move(x + 0.6 * box['width'], y)
    assert _split(page, index) == 50
    page.mouse.down()
    assert _split(page, index) == pytest.approx(60, abs=0.5)
    page.mouse.move(x + 0.25 * box['width'], y, steps=4)
    assert _split(page, index) == pytest.approx(25, abs=0.5)
    page.mouse.move(x - 50, y)
    assert _split(page, index) == 0
    page.mouse.up()
    page.mouse.move(x + 0.8 * box['width'], y)
    assert _split(page, index) == 0
    for key, expected in (('ArrowRight', 1), ('ArrowRight', 2), ('ArrowLeft', 1), ('End', 100), ('Home', 0)):
        page.keyboard.press(key)
        assert _split(page, index) == expected
    assert stage.locator('input').get_attribute('aria-valuetext') == 'left 0 % noisy, the rest restored'
    assert _split(page, 1 - index) == 50
    assert page.complaints == [page.url]


def test_the_focus_can_be_seen(show):
    page = show(1000)
    stage = page.locator('.stage').first
    for _ in range(3):  # two links, then the first slider
        before = stage.screenshot()
        page.keyboard.press('Tab')
    assert stage.locator('input').evaluate('e => e === document.activeElement && getComputedStyle(e).outlineStyle') == 'solid'
    assert stage.screenshot() != before


def test_a_finger_moves_the_divider_or_the_page(show):
    page = show(360, has_touch=True, is_mobile=True)
    device = page.context.new_cdp_session(page)
    stage = page.locator('.stage').first
    stage.scroll_into_view_if_needed()

    def swipe(across, along):
        box = stage.bounding_box()
        x, y = box['x'] + box['width'] / 2, box['y'] + box['height'] / 2
        device.send('Input.dispatchTouchEvent', {'type': 'touchStart', 'touchPoints': [{'x': x, 'y': y}]})
        for step in range(1, 9):
            point = {'x': x + across * box['width'] * step / 8, 'y': y + along * step / 8}
            device.send('Input.dispatchTouchEvent', {'type': 'touchMove', 'touchPoints': [point]})
        device.send('Input.dispatchTouchEvent', {'type': 'touchEnd', 'touchPoints': []})

    top = page.evaluate('scrollY')
    swipe(0.3, 20)
    assert _split(page) == pytest.approx(80, abs=1)
    assert page.evaluate('scrollY') == top
    swipe(0.02, -120)
    page.wait_for_function(f'scrollY > {top} + 50')
    assert _split(page) == pytest.approx(80, abs=1)
    box = stage.bounding_box()
    page.touchscreen.tap(box['x'] + 0.1 * box['width'], box['y'] + 0.8 * box['height'])
    assert _split(page) == pytest.approx(10, abs=1)


@pytest.mark.parametrize('scripts', [True, False], ids=['scripts', 'no scripts'])
def test_a_phone_shows_it_all(show, scripts):
    page = show(360, java_script_enabled=scripts)
    for part in page.locator('.burst, .stage, .shot img, .facts, .scroll, pre, h1, h2, nav').all():
        box = part.bounding_box()
        assert box['x'] >= 0 and box['x'] + box['width'] <= 360
    boxes = [page.locator('.stage').first.locator('img').nth(k).bounding_box() for k in (0, 1)]
    for box in boxes:
        assert box['width'] / box['height'] == pytest.approx(450 / 300, rel=0.01)
    assert (boxes[0] == boxes[1]) == scripts
    assert scripts or boxes[1]['y'] >= boxes[0]['y'] + boxes[0]['height']
    figure = page.locator('.scroll img').bounding_box()
    assert figure['width'] > 360 and figure['width'] / figure['height'] == pytest.approx(1800 / 80, rel=0.01)
    assert page.locator('.stage input').first.is_visible() == scripts
    if scripts:
        assert page.evaluate('document.documentElement.scrollWidth') == 360
