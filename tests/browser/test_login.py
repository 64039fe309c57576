"""The login page in a browser: it says what is wrong, and leads on as soon as a token is right."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.support.serving import dashboard_in_thread
from vibezen.metrics.clock import wall
from vibezen.metrics.settings import Auth, Required

pytestmark = pytest.mark.browser

TOKEN = "s3cret-token-of-the-page"


def attempt(page: Page, token: str) -> None:
    page.get_by_label("Token").fill(token)
    page.get_by_role("button").click()


def test_login_tells_what_is_wrong_until_a_token_is_right(chromium: Browser, redis_url: str, tmp_path: Path) -> None:
    auth = Auth(token=TOKEN, required=Required.ALWAYS)
    with (
        dashboard_in_thread(redis_url, tmp_path / "store", wall, {"auth": auth}) as served,
        chromium.new_page() as page,
    ):
        page.goto(f"{served.url}/login")
        said, button = page.get_by_role("status"), page.get_by_role("button")
        assert button.evaluate("one => getComputedStyle(one).borderTopWidth") == "0px", "the style holds"

        attempt(page, "wrong")
        expect(said).to_have_text("that is not a token of this server")
        page.route("**/login", lambda route: route.abort())
        attempt(page, TOKEN)
        expect(said).to_contain_text("does not answer")
        page.unroute("**/login")

        def proxied(route: Route) -> None:
            route.fulfill(status=502, content_type="text/html", body="<h1>Bad Gateway</h1>")

        page.route("**/login", proxied)
        attempt(page, TOKEN)
        expect(said).to_contain_text("502")
        page.unroute("**/login")

        attempt(page, TOKEN)
        page.wait_for_url(f"{served.url}/")
